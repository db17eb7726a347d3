"""What the tests of whole calls share: an echo bot, and the REST API that it hangs up with."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from dialing import ACCOUNT_SID
from echo_bot import Settings, create_app
from rest_api import API_KEY, RestApi
from serving import serve


@pytest.fixture
def api() -> RestApi:
    """The REST API of the account."""
    return RestApi()


@pytest.fixture
def echo_bot(api: RestApi) -> Callable[..., AbstractAsyncContextManager[str]]:
    """Serves the echo bot on loopback, with settings; gives its webhook's URL."""

    @asynccontextmanager
    async def served(**settings: Any) -> AsyncIterator[str]:
        async with api.serve() as base_url:
            defaults = {"account_sid": ACCOUNT_SID, **API_KEY, "base_url": base_url}
            defaults["allow_anyone"] = "auth_token" not in settings
            async with serve(create_app(Settings(**(defaults | settings)))) as port:
                yield f"http://127.0.0.1:{port}/"

    return served
