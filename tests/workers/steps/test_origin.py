from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.steps.origin import MAX_CARD_BYTES, Origin, origin_of


def files_of(folder: Path, name: object = None, card: str | None = None) -> dict[str, Path]:
    files = {"config.json": folder / "config.json"}
    files["config.json"].write_text(json.dumps({"_name_or_path": name} if name else {}))
    if card is not None:
        files["README.md"] = folder / "README.md"
        files["README.md"].write_text(card)
    return files


def test_name_and_licence_are_read(tmp_path: Path) -> None:
    card = "---\nlanguage: en\nlicense: cc-by-4.0\n---\n# Model\n"
    origin = origin_of(files_of(tmp_path, "microsoft/MiniLM-L12-H384-uncased", card))
    assert origin == Origin(base_model="microsoft/MiniLM-L12-H384-uncased", license="cc-by-4.0")


def test_nothing_is_known_of_an_upload_that_is_gone_or_silent(tmp_path: Path) -> None:
    assert origin_of({}) == Origin()
    assert origin_of(files_of(tmp_path)) == Origin()


@pytest.mark.parametrize(
    "name", ["/home/someone/model", "./model", "../x/y", "models", "a/b/c", "a/b\nc: d", ["a/b"]]
)
def test_what_is_no_name_on_a_hub_is_left_out(tmp_path: Path, name: object) -> None:
    assert origin_of(files_of(tmp_path, name)).base_model is None


@pytest.mark.parametrize(
    "card",
    [
        "# No front matter\nlicense: mit\n",
        "---\nlicense: [mit, gpl]\n---\n",
        "---\nlicense: 'mit\\nevil: yes'\n---\n",
        "---\nlicense: mit; and more\n---\n",
        "---\nlicense: !!python/object/apply:os.system ['true']\n---\n",
        "---\n- license\n---\n",
        "---\n: : :\n---\n",
        "---\na: " + "[" * 5000 + "\n---\n",
        "---\nlicense: mit\n---\n" + "x" * MAX_CARD_BYTES,
        "",
    ],
)
def test_a_licence_that_is_no_plain_word_is_unknown(tmp_path: Path, card: str) -> None:
    assert origin_of(files_of(tmp_path, card=card)).license is None
