"""Write the reference pages: `python -m service.reference`."""

from __future__ import annotations

from pathlib import Path

from service.reference.pages import PAGES

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, document in PAGES.items():
        (FOLDER / name).write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
