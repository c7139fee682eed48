"""The folder of an example: job files that lie beside the model and the data that they name."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def folder_argument(about: str | None, default: str) -> Path:
    """Where the caller wants it."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(default))
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copy_job_files(example: Path, folder: Path) -> None:
    """Every `job*.yaml` of the example, where the folder has none of that name yet."""
    for path in sorted(example.glob("job*.yaml")):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    print(f"{folder}/ is complete: snugnet submit {folder}/job.yaml --watch")
