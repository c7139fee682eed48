from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from service.cli.downloading import download_progress


def test_a_terminal_shows_each_file_and_its_size() -> None:
    written = io.StringIO()
    with download_progress(Console(file=written, force_terminal=True, width=80)) as on_progress:
        assert on_progress is not None
        on_progress(Path("found/model.onnx"), 3_000_000)
        on_progress(Path("found/config.json"), 2_000)
    shown = written.getvalue()
    assert "config.json" in shown
    assert "2.0 kB" in shown


def test_where_nobody_looks_on_nothing_is_shown() -> None:
    written = io.StringIO()
    with download_progress(Console(file=written)) as on_progress:
        assert on_progress is None
    assert written.getvalue() == ""
