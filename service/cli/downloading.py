"""How far a download is, on a terminal's standard error; elsewhere nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import FileSizeColumn, Progress, TextColumn, TransferSpeedColumn

from service.client.downloads import OnProgress


@contextmanager
def download_progress(console: Console | None = None) -> Iterator[OnProgress | None]:
    """What the client is to tell of each file; None where nobody looks on."""
    console = console or Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), FileSizeColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        shown: list[Path] = []

        def tell(path: Path, num_bytes: int) -> None:
            if shown != [path]:
                shown[:] = [path]
                progress.reset(task, description=path.name)
            progress.update(task, completed=num_bytes)

        yield tell
