"""The Call resource: its address, its credentials, and the arguments that it refuses."""

import base64
from typing import Any

import pytest
from rest_server import ACCOUNT, CALL, KEY, PATH, SECRET, TOKEN

from pipecat_twilio.twilio import call_resource
from pipecat_twilio.twilio.call_resource import CallResource

ELSEWHERE = "https://pbx.example.com"
API_KEY = {"auth_token": None, "api_key_sid": KEY, "api_key_secret": SECRET}

# Each could lead a request elsewhere, or break it.
STEERING = [
    *("CA1/../../x", "CA1?a=b", "CA1#", "CA1%2e", "CA1\\x", "CA 1", "CA1\n", "CA1\x7f", "C\u0410"),
    *(".", "..", "...", "\ud800", "a" * 257),
]
OTHER_FORMS = ["1699999999.123", "abc@host", ".a", "!\"$&'()*+,-:;<=>[]^_`{|}~"]
NO_DNS_LABELS = ["evil.com/", "a.b", "-a", "a-", "a" * 64, "a b", "ie1\n", "\u00e9"]
NO_BASE_URLS = [
    *("example.com", "ftp://example.com", "https://", "https:///path", "javascript:alert(1)"),
    *("https://user:hidden@example.com", "https://example.com\\@evil.com", "https://a<b"),
    *("https://example.com/?a=b", "https://example.com/#", "https://exa mple.com", 'https://a"b'),
    *("https://example.com\n", "https://\u0435xample.com", "\thttps://example.com"),
    *("https://a.example:port", "https://a.example:99999", "https://a.example:0", "https://[::1"),
]


def resource(**changes: Any) -> CallResource:
    arguments = {"account_sid": ACCOUNT, "call_sid": CALL, "auth_token": TOKEN}
    return CallResource(**arguments | changes)


@pytest.mark.parametrize(
    ("where", "root", "region"),
    [
        ({}, "https://api.twilio.com", "us1, the default"),
        ({"region": "ie1", "edge": "dublin"}, "https://api.dublin.ie1.twilio.com", "ie1"),
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
    assert made.credentials_region == region or region is None


@pytest.mark.parametrize("name", ["account_sid", "call_sid"])
@pytest.mark.parametrize("sid", [*STEERING, *OTHER_FORMS, "a" * 256])
def test_a_sid_cannot_steer_the_request_and_base_url_takes_any_other_verbatim(name, sid) -> None:
    if sid in STEERING:
        with pytest.raises(ValueError, match=f"{name} must be at most 256 .* got") as error:
            resource(**{name: sid}, base_url=ELSEWHERE)
        assert str(error.value).isascii()
        assert len(str(error.value)) < 300
    else:
        assert f"/{sid}" in resource(**API_KEY | {name: sid}, base_url=ELSEWHERE).url
    if len(sid) != 256:  # Twilio's own API gets letters, digits, underscore and hyphen only
        with pytest.raises(ValueError, match=f"{name} must be at most 256 .* letters, digits"):
            resource(**{name: sid})


@pytest.mark.parametrize("name", ["region", "edge"])
@pytest.mark.parametrize("label", NO_DNS_LABELS)
def test_region_and_edge_must_be_dns_labels(name: str, label: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a DNS label, got '"):
        resource(**{"region": "ie1", "edge": "dublin", name: label})


@pytest.mark.parametrize("base_url", NO_BASE_URLS)
def test_an_invalid_base_url_is_refused_without_quoting_its_password(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be") as error:
        resource(base_url=base_url)
    assert "hidden" not in str(error.value)


def test_clear_text_to_another_host_is_warned_about_once(log: list[str]) -> None:
    call_resource._warn_of_clear_text.cache_clear()
    for _ in range(3):
        resource(base_url="http://pbx.example.com")
        for loopback in ("http://localhost:1", "http://127.0.0.9", "http://[::1]"):
            resource(base_url=loopback)
    (line,) = log
    assert line.startswith("WARNING base_url is http")
    assert "pbx.example.com" in line


@pytest.mark.parametrize(
    ("credentials", "login", "kind"),
    [
        ({}, f"{ACCOUNT}:{TOKEN}", "auth token"),
        ({"auth_token": "\u00e9"}, f"{ACCOUNT}:\u00e9", "auth token"),
        (API_KEY, f"{KEY}:{SECRET}", f"API key '{KEY}'"),
    ],
)
def test_a_token_or_a_key_is_the_login_and_is_never_shown(credentials, login, kind) -> None:
    made = resource(**credentials)
    basic = base64.b64encode(login.encode()).decode()
    assert made.authorization == f"Basic {basic}"
    assert made.credentials == kind
    assert repr(made) == str(made) == f"<Call {CALL}>"
    assert made.shows_secret(f"<p>{login.partition(':')[2]}</p>")
    assert made.shows_secret(f"Basic {basic}.")
    assert not made.shows_secret(f"{ACCOUNT} {KEY} Basic")


LOGIN = "auth_token or api_key_sid + api_key_secret"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"call_sid": None}, "enabled but missing required parameters: call_sid$"),
        ({"account_sid": ""}, "parameters: account_sid$"),
        ({"auth_token": ""}, f"parameters: {LOGIN}$".replace("+", r"\+")),
        ({"call_sid": "", "account_sid": None}, "parameters: call_sid, account_sid$"),
        ({"region": "ie1"}, "Both edge and region .* edge is missing"),
        ({"edge": "dublin"}, "Both edge and region .* region is missing"),
        (API_KEY | {"api_key_secret": ""}, "api_key_secret is missing"),
        (API_KEY | {"api_key_sid": None}, "api_key_sid is missing"),
        ({"api_key_sid": KEY}, "not both"),
        ({"api_key_secret": SECRET}, "not both"),
        ({"auth_token": f"{TOKEN}\ud800"}, "auth_token cannot be encoded"),
        (API_KEY | {"api_key_secret": f"{SECRET}\ud800"}, "api_key_secret cannot be encoded"),
        # A server would take what comes after the colon for the start of the secret.
        (API_KEY | {"api_key_sid": "SK:1"}, "^api_key_sid .* colon, .*'SK:1'"),
        (
            {"account_sid": "a:b", "base_url": ELSEWHERE},
            "^account_sid must not contain a colon, got 'a:b'$",
        ),
        *(
            ({name: value}, f"^{name} must be a str, got {type(value).__name__}$")
            for name in ("account_sid", "call_sid", *API_KEY, "region", "edge", "base_url")
            for value in (0, 1.5, b"secret", ["secret"])
        ),
    ],
)
def test_what_is_missing_mixed_or_malformed_is_named_without_secrets(arguments, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        resource(**arguments)
    assert error.value.__context__ is None or error.value.__suppress_context__
    assert TOKEN not in str(error.value)
    assert SECRET not in str(error.value)
