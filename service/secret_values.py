"""Secrets of the environment: given as they are, or as the path of a file that holds them.

`SNUGNET_API_KEY_FILE=/run/secrets/agent_key` is for what must be in no process list and in no
`docker inspect`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from search.errors import InvalidInput

MASK = "***"
# Greedy, since a password that was not escaped may hold any character.
PASSWORDS = (
    re.compile(r"^(?P<before>[^:]+://[^:/?#@]*:)(?P<secret>.*)(?P<after>@)"),
    re.compile(
        r"(?P<before>[?&]\w*(?:password|passwd|token)=)(?P<secret>[^&#]*)(?P<after>)", re.I
    ),
)


def read_secret(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The value of `name`, or what the file named by `<name>_FILE` holds; None without either.

    Raises:
        InvalidInput: both are given, or the file cannot be read or is empty.
    """
    value, path = environment.get(name), environment.get(f"{name}_FILE")
    if not path:
        return value or None
    if value:
        raise InvalidInput(f"{name}_FILE", f"give either it or {name}")
    try:
        content = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise InvalidInput(f"{name}_FILE", f"cannot read {path}: {reason}") from None
    if not content:
        raise InvalidInput(f"{name}_FILE", f"{path} is empty")
    return content


def redacted_url(url: str) -> str:
    """The same without its passwords, for logs and people."""
    for pattern in PASSWORDS:
        url = pattern.sub(rf"\g<before>{MASK}\g<after>", url)
    return url


def passwords_of(url: str) -> tuple[str, ...]:
    """What `redacted_url` hides, as it stands in the URL and as it is meant."""
    written = [match["secret"] for pattern in PASSWORDS for match in pattern.finditer(url)]
    return tuple(dict.fromkeys(s for text in written if text for s in (text, unquote(text))))
