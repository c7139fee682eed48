"""Python's own modules as texts, and a small GPT-2 that has learnt nothing yet.

The standard library that runs this is the corpus (PSF licence). A GPT-2 of four layers and 2,048
tokens gets random weights, and a tokenizer that is trained on it: the job's first training teaches
it the rest.

python -m examples.source_code.prepare [FOLDER]
"""

from __future__ import annotations

import json
import random
import sysconfig
from pathlib import Path

from examples.folder import copy_job_files, folder_argument
from search.model.fresh import write_fresh_gpt2

SKIPPED = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings"})
MAX_CHARS = 600_000
LONGEST = 60_000  # a table of a whole module would be most of a small corpus


def prepare(folder: Path) -> None:
    """`modules.jsonl` with a `text` a line, and the folder `model`."""
    texts = _modules()
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "modules.jsonl").write_text("".join(lines), encoding="utf-8")
    if not (folder / "model").exists():
        write_fresh_gpt2(
            folder / "model",
            texts,
            vocab_size=2048,
            num_layers=4,
            embed_dim=128,
            num_heads=4,
            max_seq_len=128,
        )


def _modules() -> list[str]:
    """In an order that is always the same, as many as have so many characters."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in root.rglob("*.py") if not SKIPPED & set(p.relative_to(root).parts)]
    paths.sort()
    random.Random(0).shuffle(paths)
    texts: list[str] = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.strip() and len(text) < LONGEST:
            texts.append(text)
        if sum(map(len, texts)) >= MAX_CHARS:
            break
    return texts


if __name__ == "__main__":
    wanted = folder_argument(__doc__, "source-code")
    prepare(wanted)
    copy_job_files(Path(__file__).parent, wanted)
