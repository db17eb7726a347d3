"""A stand-in for Twilio's REST API that can only end calls."""

import hmac
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web
from dialing import ACCOUNT_SID
from serving import serve_routes

API_KEY = {"api_key_sid": "SK" + "0" * 32, "api_key_secret": "not a secret"}


class RestApi:
    """The API of one account.

    Args:
        account_sid: The account.
        auth_token: Its token. Any API key is accepted too: its secret is not known here.
        hang_up: Ends the call with a SID; returns whether there is such a call.
    """

    PATH = "/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"

    def __init__(
        self,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = "",
        hang_up: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._hang_up = hang_up
        self.ended: Counter[str] = Counter()  # how often each call was ended, by its SID

    async def update(self, request: web.Request) -> web.Response:
        """Ends a call as Twilio does.

        Source: https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource
        """
        account_sid, call_sid = request.match_info["account_sid"], request.match_info["call_sid"]
        if not self._may_end_calls(request.headers.get("Authorization", "")):
            return web.json_response({"code": 20003, "message": "Authenticate"}, status=401)
        if (await request.post()).get("Status") != "completed":
            return web.json_response({"code": 20001, "message": "Status"}, status=400)
        if account_sid != self._account_sid or not self._hang_up(call_sid):
            return web.json_response({"code": 20404, "message": "not found"}, status=404)
        self.ended[call_sid] += 1
        return web.json_response({"sid": call_sid, "status": "completed"})

    def _may_end_calls(self, authorization: str) -> bool:
        try:
            login = b64decode(authorization.removeprefix("Basic "), validate=True).decode()
        except ValueError:
            return False
        name, _, password = login.partition(":")
        if name.startswith("SK") or not self._auth_token:
            return bool(name and password)
        own_login = f"{self._account_sid}:{self._auth_token}"
        return hmac.compare_digest(login.encode(), own_login.encode())

    def serve(self) -> AbstractAsyncContextManager[str]:
        """Serves it on loopback; gives its root URL."""
        return serve_routes(web.post(self.PATH, self.update))
