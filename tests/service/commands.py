"""The command line in this process: what it prints, and how it ends."""

from __future__ import annotations

import sys

import pytest

from service.cli.program import run


class Cli:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["snugnet", *args])
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err
