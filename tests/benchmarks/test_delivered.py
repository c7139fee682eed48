"""Files of compressed networks: what they weigh, how they answer, how far they are from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.delivered import compared, deliver, time_all
from benchmarks.techniques import FP16, INT8, WIDTHS
from search.compress.configs import SparsifyConfig
from search.compress.recipe import StageConfig
from search.compress.stages import apply_stage
from search.training.evaluate import evaluate_rows
from tests.benchmarks.subjects import subject
from tests.search.compress.data import stage_data


def delivered(folder: Path, name: str, *stages: StageConfig):
    network = subject().whole
    for stage in stages:
        network = apply_stage(network, stage, stage_data())
    return deliver(name, network, subject(), folder / name, splits=("test",))


def test_a_file_is_judged_as_the_network_is(tmp_path: Path) -> None:
    one = delivered(tmp_path, "whole")
    expected = evaluate_rows(subject().whole.model, subject().rows["test"])
    assert np.array_equal(one.scores["test"], expected.score.numpy())
    assert one.figures["agreement"] == 1.0
    assert one.figures["file_bytes"] == one.file.stat().st_size
    itself = compared(one, one, subject(), "test")
    assert itself["kept"] == 1.0
    assert itself["against_original"]["difference"] == 0.0


def test_zeros_shrink_a_file_only_once_it_is_packed(tmp_path: Path) -> None:
    whole = delivered(tmp_path, "whole").figures
    sparse = delivered(tmp_path, "sparse", SparsifyConfig(sparsity=0.9)).figures
    assert sparse["file_bytes"] == whole["file_bytes"]
    assert sparse["gzip_bytes"] < 0.7 * whole["gzip_bytes"]
    assert sparse["zeros"] > 0


def test_halves_and_int8_are_files_that_are_smaller(tmp_path: Path) -> None:
    whole = delivered(tmp_path, "whole").figures
    halves = delivered(tmp_path, "halves", FP16).figures
    int8 = delivered(tmp_path, "int8", INT8).figures
    assert halves["file_bytes"] < 0.75 * whole["file_bytes"]
    assert int8["file_bytes"] < whole["file_bytes"]
    assert halves["precision"] == "fp16"
    assert int8["precision"] == "int8"
    assert min(halves["agreement"], int8["agreement"]) >= 0.95


def test_what_was_delivered_before_is_read(tmp_path: Path) -> None:
    one = delivered(tmp_path, "pruned", WIDTHS)
    written = one.file.stat().st_mtime_ns
    again = delivered(tmp_path, "pruned", WIDTHS)
    assert again.file.stat().st_mtime_ns == written
    assert again.figures == one.figures
    assert np.array_equal(again.scores["test"], one.scores["test"])


@pytest.mark.slow
def test_all_files_are_timed_in_one_session(tmp_path: Path) -> None:
    files = [delivered(tmp_path, "whole"), delivered(tmp_path, "pruned", WIDTHS, INT8)]
    found = time_all(files, subject()).latencies_ms
    assert set(found) == {"whole", "pruned"}
    assert min(found.values()) > 0
