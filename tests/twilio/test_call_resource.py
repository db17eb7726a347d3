"""The Call resource: its address, its credentials, and the arguments that it refuses."""

import base64
from typing import Any

import pytest
from rest_server import ACCOUNT, CALL, KEY, PATH, SECRET, TOKEN

from pipecat_twilio.twilio import call_resource
from pipecat_twilio.twilio.call_resource import CallResource

ELSEWHERE = "https://pbx.example.com"

# Each could lead a request elsewhere, or break it.
STEERING = [
    *("CA1/../../x", "CA1?a=b", "CA1#", "CA1%2e", "CA1\\x", "CA 1", "CA1\n", "CA1\x7f", "C\u0410"),
    *(".", "..", "...", "\ud800", "a" * 257),
]


def resource(**changes: Any) -> CallResource:
    return CallResource(
        **{"account_sid": ACCOUNT, "call_sid": CALL, "auth_token": TOKEN, **changes}
    )


@pytest.mark.parametrize(
    ("where", "root", "region"),
    [
        ({}, "https://api.twilio.com", "us1, the default"),
        ({"region": "ie1", "edge": "dublin"}, "https://api.dublin.ie1.twilio.com", "ie1"),
        ({"region": "au1", "edge": "sydney"}, "https://api.sydney.au1.twilio.com", "au1"),
        ({"base_url": "https://a.example/"}, "https://a.example", "https://a.example/"),
        ({"base_url": "https://a.example:8443/%7eb"}, "https://a.example:8443/%7eb", None),
        ({"base_url": "http://[::1]:80", "region": "ie1"}, "http://[::1]:80", "http://[::1]:80"),
        ({"base_url": "https://[::1]:1", "region": "ie1", "edge": "x"}, "https://[::1]:1", None),
        ({"base_url": "", "region": "", "edge": None}, "https://api.twilio.com", None),
    ],
)
def test_the_root_is_base_url_or_edge_and_region_or_the_default(where, root, region) -> None:
    made = resource(**where)
    assert made.url == root + PATH
    assert made.region == region or region is None


@pytest.mark.parametrize("name", ["account_sid", "call_sid"])
class TestSids:
    @pytest.mark.parametrize("sid", [*STEERING, "CA1.json", "a@b", "a:b", "a+b"])
    def test_without_base_url_only_letters_digits_and_two_more_are_taken(self, name, sid) -> None:
        with pytest.raises(ValueError, match=f"{name} must be at most 256 .* letters, digits"):
            resource(**{name: sid})

    @pytest.mark.parametrize("sid", STEERING)
    def test_with_base_url_what_could_steer_the_request_is_refused(self, name, sid) -> None:
        with pytest.raises(ValueError, match=f"{name} must be at most 256 .* got") as error:
            resource(**{name: sid}, base_url=ELSEWHERE)
        assert str(error.value).isascii()
        assert len(str(error.value)) < 300

    @pytest.mark.parametrize(
        "sid",
        ["1699999999.123", "v3:abc:def", "abc@host", ".a", "!\"$&'()*+,-;<=>[]^_`{|}~", "a" * 256],
    )
    def test_with_base_url_any_other_is_taken_verbatim(self, name, sid) -> None:
        key = {"auth_token": None, "api_key_sid": KEY, "api_key_secret": SECRET}
        assert f"/{sid}" in resource(**{name: sid}, **key, base_url=ELSEWHERE).url


@pytest.mark.parametrize("name", ["region", "edge"])
class TestRegionAndEdge:
    @pytest.mark.parametrize(
        "label", ["evil.com/", "a.b", "-a", "a-", "a" * 64, "a b", "ie1\n", "\u00e9"]
    )
    def test_anything_but_a_dns_label_is_refused_by_name(self, name: str, label: str) -> None:
        with pytest.raises(ValueError, match=f"^{name} must be a DNS label, got '"):
            resource(**{"region": "ie1", "edge": "dublin", name: label})

    def test_one_is_refused_without_the_other(self, name: str) -> None:
        other = {"region": "edge", "edge": "region"}[name]
        with pytest.raises(ValueError, match=f"Both edge and region .* {other} is missing"):
            resource(**{name: "ie1"})


class TestBaseUrl:
    @pytest.mark.parametrize(
        "base_url",
        [
            *(
                "example.com",
                "ftp://example.com",
                "https://",
                "https:///path",
                "javascript:alert(1)",
            ),
            *("https://user:hidden@example.com", "https://example.com\\@evil.com"),
            *("https://example.com/?a=b", "https://example.com/#", "https://exa mple.com"),
            *("https://example.com\n", "https://\u0435xample.com", 'https://a"b', "https://a<b"),
            *("https://example.com:port", "https://example.com:99999", "https://example.com:0"),
            *("https://[::1", "\thttps://example.com"),
        ],
    )
    def test_an_invalid_base_url_is_refused_without_quoting_its_password(
        self, base_url: str
    ) -> None:
        with pytest.raises(ValueError, match="base_url must be") as error:
            resource(base_url=base_url)
        assert "hidden" not in str(error.value)

    def test_clear_text_to_another_host_is_warned_about_once(self, log: list[str]) -> None:
        call_resource._warn_of_clear_text.cache_clear()
        for _ in range(3):
            resource(base_url="http://pbx.example.com")
            for loopback in ("http://localhost:1", "http://127.0.0.9", "http://[::1]"):
                resource(base_url=loopback)
        (line,) = log
        assert line.startswith("WARNING base_url is http")
        assert "pbx.example.com" in line


class TestCredentials:
    @pytest.mark.parametrize(
        ("credentials", "login", "kind"),
        [
            ({}, f"{ACCOUNT}:{TOKEN}", "auth token"),
            ({"auth_token": "\u00e9"}, f"{ACCOUNT}:\u00e9", "auth token"),
            (
                {"auth_token": None, "api_key_sid": KEY, "api_key_secret": SECRET},
                f"{KEY}:{SECRET}",
                f"API key '{KEY}'",
            ),
        ],
    )
    def test_a_token_or_a_key_is_the_login_and_is_never_shown(self, credentials, login, kind):
        made = resource(**credentials)
        basic = base64.b64encode(login.encode()).decode()
        assert made.authorization == f"Basic {basic}"
        assert made.credentials == kind
        assert repr(made) == str(made) == f"<Call {CALL}>"
        secret = login.partition(":")[2]
        assert made.shows_secret(f"<p>{secret}</p>")
        assert made.shows_secret(f"Basic {basic}.")
        assert not made.shows_secret(f"{ACCOUNT} {KEY} Basic")

    @pytest.mark.parametrize("nothing", [None, ""])
    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (["call_sid"], "call_sid"),
            (["account_sid"], "account_sid"),
            (["auth_token"], "auth_token or api_key_sid + api_key_secret"),
            (
                ["call_sid", "account_sid", "auth_token"],
                "call_sid, account_sid, auth_token or api_key_sid + api_key_secret",
            ),
        ],
    )
    def test_the_error_names_what_is_missing_its_variable_and_the_way_out(
        self, names: list[str], told: str, nothing
    ) -> None:
        with pytest.raises(ValueError, match="auto_hang_up is enabled") as error:
            resource(**dict.fromkeys(names, nothing))
        text = str(error.value)
        assert f"missing required parameters: {told}. " in text
        for name in ("ACCOUNT_SID", "AUTH_TOKEN", "API_KEY", "API_SECRET"):
            assert f"TWILIO_{name}" in text
        assert "InputParams(auto_hang_up=False)" in text
        assert TOKEN not in text

    @pytest.mark.parametrize(
        ("credentials", "told"),
        [
            ({"api_key_sid": KEY}, r"api_key_secret is missing .*TWILIO_API_SECRET"),
            ({"api_key_secret": SECRET}, r"api_key_sid is missing .*TWILIO_API_KEY"),
            ({"auth_token": TOKEN, "api_key_sid": KEY}, "not both"),
            ({"auth_token": TOKEN, "api_key_secret": SECRET}, "not both"),
            ({"api_key_sid": "k" * 257, "api_key_secret": SECRET}, "api_key_sid .* 256"),
            ({"auth_token": f"{TOKEN}\ud800"}, "auth_token cannot be encoded"),
            ({"api_key_sid": KEY, "api_key_secret": f"{SECRET}\ud800"}, "api_key_secret cannot"),
            # A server would take what comes after the colon for the start of the secret.
            ({"api_key_sid": "SK:1", "api_key_secret": SECRET}, "^api_key_sid .* colon, .*'SK:1'"),
            (
                {"account_sid": "a:b", "auth_token": TOKEN, "base_url": ELSEWHERE},
                "^account_sid must not contain a colon, got 'a:b'$",
            ),
        ],
    )
    def test_incomplete_mixed_or_broken_credentials_are_refused(
        self, credentials, told: str
    ) -> None:
        with pytest.raises(ValueError, match=told) as error:
            resource(**{"auth_token": None, **credentials})
        assert error.value.__context__ is None or error.value.__suppress_context__
        assert TOKEN not in str(error.value)
        assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("account_sid", "call_sid", "auth_token", "api_key_sid", "api_key_secret"),
        *("region", "edge", "base_url"),
    ],
)
@pytest.mark.parametrize("value", [0, 10**400, 1.5, b"secret", ["secret"], object()])
def test_an_argument_that_is_not_a_str_is_refused_by_name_and_type(name: str, value: Any) -> None:
    told = f"^{name} must be a str, got {type(value).__name__}$"
    with pytest.raises(ValueError, match=told):
        resource(**{name: value})
