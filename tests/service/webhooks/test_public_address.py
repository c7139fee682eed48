"""Nobody makes the service call into its own network."""

from __future__ import annotations

import pytest

from search.errors import InvalidInput
from service.webhooks.public_address import NotPublic, check_url, public_address

PUBLIC = "93.184.215.14"
PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "fe80::1%eth0",
    "fc00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("others", [[], [PUBLIC]])
def test_any_private_address_is_refused(address: str, others: list[str]) -> None:
    with pytest.raises(NotPublic, match="private address"):
        public_address("https://a.example/x", (), lambda *_: [*others, address])


def test_the_address_is_looked_up_once() -> None:
    """A name that answers otherwise the second time is never asked a second time."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    assert public_address("https://a.example", (), lambda *_: next(answers)) == PUBLIC


@pytest.mark.parametrize("literal", ["127.0.0.1", "[::1]", "0x7f.1", "2130706433", "localhost"])
def test_addresses_in_the_url_are_no_way_around(literal: str) -> None:
    with pytest.raises((NotPublic, OSError)):
        public_address(f"https://{literal}/x", ())


def test_the_operator_may_allow_a_host() -> None:
    url = "http://hooks.internal:8080/x"
    assert public_address(url, ("hooks.internal",), lambda *_: ["10.0.0.9"]) == "10.0.0.9"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a.example", "https"),
        ("ftp://a.example", "https"),
        ("https://", "must be a URL"),
        ("https://me:secret@a.example", "password"),
        ("https://a.example:99999", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://a.example/" + "x" * 2000, "characters"),
        ("nonsense", "must be a URL"),
    ],
)
def test_what_is_no_url_to_send_to_is_named(url: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_url(url, ())
