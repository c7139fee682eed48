"""The command line's part on keys and agents, against a real server."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.cli.program import run
from service.client import Client, NotAllowed
from service.settings import Settings
from tests.service.measuring import IDENTITY
from tests.service.serving import listening

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with listening(settings) as (url, key):
        monkeypatch.setenv("SNUGNET_URL", url)
        monkeypatch.setenv("SNUGNET_API_KEY", key)
        yield url


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Cli]:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def call(*args: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        monkeypatch.setattr(sys, "argv", ["snugnet", *args])
        with pytest.raises(SystemExit) as ended:
            run()
        return int(ended.value.code or 0), *capsys.readouterr()

    yield call
    signal.signal(signal.SIGTERM, before)  # an agent sets its own


def test_an_agents_key_is_made_listed_and_revoked(cli: Cli, url: str) -> None:
    code, out, _ = cli(
        "keys", "create", "kitchen", "--scope", "devices:measure", "--expires-days", "30"
    )
    key = out.strip()
    assert code == 0
    assert key.startswith("snug_")
    with Client(url, key) as agent:
        agent.register_device("pi", IDENTITY)
        with pytest.raises(NotAllowed):
            agent.jobs()
        key_id = f"key_{key.split('_')[1]}"
        code, out, _ = cli("keys", "list")
        assert code == 0
        assert key_id in out
        assert key not in out
        assert cli("keys", "revoke", key_id) == (0, f"{key_id} is revoked\n", "")
        with pytest.raises(NotAllowed, match="was revoked"):
            agent.register_device("pi", IDENTITY)
    assert "revoked" in cli("keys", "list")[1]


@pytest.mark.usefixtures("url")
def test_a_scope_that_is_none_is_named(cli: Cli) -> None:
    code, out, err = cli("keys", "create", "x", "--scope", "everything")
    assert (code, out) == (2, "")
    assert err.startswith("error: scopes[0]")


@pytest.mark.usefixtures("url")
def test_an_unknown_key_lists_no_keys(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNUGNET_API_KEY", "snug_x_y")
    code, _, err = cli("keys", "list")
    assert code == 3
    assert err.startswith("error: this API key is unknown")


def test_an_agent_with_too_narrow_a_key_ends_with_one_line(
    cli: Cli, url: str, tmp_path: Path
) -> None:
    key = cli("keys", "create", "user", "--scope", "jobs:write", "--scope", "devices:write")[
        1
    ].strip()
    code, _, err = cli(
        "agent", "--server", url, "--key", key, "--name", "pi", "--state-dir", str(tmp_path)
    )
    assert code == 1
    assert err.splitlines()[-1] == (
        "error: the server does not accept this key: "
        "this API key lacks the scope 'devices:measure'"
    )
