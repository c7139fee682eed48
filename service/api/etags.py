"""Entity tags, as RFC 9110 (8.8.3, 13.1) compares them."""

from __future__ import annotations


def matches(header: str, etag: str) -> bool:
    """Whether `If-Match` or `If-None-Match` names this one; `*` names any."""
    named = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return etag in named or "*" in named
