from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import InvalidInput
from service.secret_values import passwords_of, read_secret, redacted_url


def test_a_secret_is_given_itself_or_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert read_secret("KEY", {"KEY": "itself"}) == "itself"
    assert read_secret("KEY", {"KEY_FILE": str(file)}) == "from-file"
    assert read_secret("KEY", {"KEY": "", "KEY_FILE": ""}) is None


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"KEY": "a", "KEY_FILE": "b"}, "give either it or KEY"),
        ({"KEY_FILE": "/nowhere/key"}, "cannot read /nowhere/key: No such file"),
        ({"KEY_FILE": "/dev/null"}, "/dev/null is empty"),
    ],
)
def test_a_secret_that_cannot_be_had_is_named(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"^KEY_FILE.*{reason}"):
        read_secret("KEY", environment)


@pytest.mark.parametrize(
    ("url", "shown", "hidden"),
    [
        ("sqlite:////data/snugnet.db", "sqlite:////data/snugnet.db", ()),
        ("redis+socket:///data/v.sock", "redis+socket:///data/v.sock", ()),
        ("redis://:pa55@redis:6379/0", "redis://:***@redis:6379/0", ("pa55",)),
        ("postgresql://me:p%40@db/x", "postgresql://me:***@db/x", ("p%40", "p@")),
        ("postgresql://me@db/x?password=s3", "postgresql://me@db/x?password=***", ("s3",)),
        ("postgresql://me:p/a@b@db", "postgresql://me:***@db", ("p/a@b",)),
        (
            "rediss://:a@r/0?ssl_keyfile_password=k",
            "rediss://:***@r/0?ssl_keyfile_password=***",
            ("a", "k"),
        ),
    ],
)
def test_the_password_of_a_url_is_hidden(url: str, shown: str, hidden: tuple[str, ...]) -> None:
    assert redacted_url(url) == shown
    assert passwords_of(url) == hidden
