"""A tiny model and tiny data on a server, by plain HTTP, and the spec of a job of both."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import httpx

from search.model.fresh import write_fresh_gpt2

TEXTS = [f"line {i} of a text that nobody reads" for i in range(400)]


def upload_small_job(folder: Path, url: str, key: str) -> dict[str, Any]:
    """The spec, ready to be submitted."""
    model, data = folder / "model", folder / "rows.jsonl"
    write_fresh_gpt2(
        model, TEXTS, vocab_size=300, num_layers=2, embed_dim=16, num_heads=2, max_seq_len=32
    )
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=60) as http:
        files = sorted(path for path in model.iterdir() if path.is_file())
        task = {"task": "language-modelling"}
        return {
            "model": {"upload": _upload(http, files, {"kind": "model"})},
            "data": {"upload": _upload(http, [data], {"kind": "dataset", **task})},
            "targets": [{"budget_ratio": 0.5, "workload": {"seq_len": 16}}],
            "training": {"max_seq_len": 16},
            "labels": {"team": "blue"},
            **task,
        }


def _upload(http: httpx.Client, paths: list[Path], about: dict[str, str]) -> str:
    contents = {path.name: path.read_bytes() for path in paths}
    files = [
        {"name": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    created = http.post("/uploads", json={**about, "files": files}).raise_for_status()
    upload_id = str(created.json()["id"])
    for name, content in contents.items():
        http.put(f"/uploads/{upload_id}/files/{name}", content=content).raise_for_status()
    answer = http.post(f"/uploads/{upload_id}/finalize")
    while answer.raise_for_status().json()["state"] != "ready":
        time.sleep(0.1)
        answer = http.get(f"/uploads/{upload_id}")
    return upload_id
