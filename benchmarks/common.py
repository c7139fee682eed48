"""What every benchmark shares: which code ran where, and where its figures are kept."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from predictors.probe import probe_device, probe_environment
from search.shape import ModelShape

RESULTS = Path(__file__).parent / "results"

MINILM = ModelShape(
    family="bert",
    num_layers=6,
    embed_dim=384,
    num_heads=12,
    head_dim=32,
    ffn_dim=1536,
    vocab_size=30522,
    max_seq_len=512,
    num_token_types=2,
    num_labels=2,
)


def report_result(name: str, figures: dict[str, Any], *, keep: bool = True) -> None:
    """Prints the figures with their provenance as JSON; `keep` writes results/<name>.json too."""
    record = {
        "benchmark": name,
        "commit": commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": probe_device().to_dict(),
        "environment": probe_environment(),
        **figures,
    }
    text = json.dumps(record, indent=2)
    print(text)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")


def commit() -> str | None:
    """Commit of the code, with "-dirty" where files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
