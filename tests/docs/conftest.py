"""A folder with what the pages ask their readers to bring, and a shell in it."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.shell import Shell, opened_shell
from tests.workers.steps import tiny_job


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One for all pages, so that they share a service and its jobs.

    The reader's model and data are small ones here: jobs that are the reader's own train for half
    an hour, these for seconds.
    """
    folder = tmp_path_factory.mktemp("reader")
    tiny_job.write_model(folder / "my-model")
    rows = tiny_job.write_data(folder / "reviews.jsonl")
    write_csv(rows, folder / "reviews.csv")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with opened_shell(folder, port) as shell:
        yield shell


def write_csv(rows: Path, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(map(json.loads, rows.read_text().splitlines()))
