from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from search.export.package import export_onnx
from search.export.running import OnnxNetwork
from search.model.transformer import Batch
from search.robustness.probe import ImageProbe, Probe
from search.robustness.report import (
    MAX_FLOPS,
    MEASURES,
    MIN_ROWS,
    Subject,
    affordable_rows,
    examine,
)
from tests.search.export.networks import ALL
from tests.search.families import SHAPES, network_of
from tests.search.robustness.probes import BERT, knows_not, probe
from tests.search.robustness.test_probe import PROBES, pixels

SMALL = replace(BERT, num_labels=2)


def test_a_file_and_its_network_in_torch_are_examined_alike(tmp_path: Path) -> None:
    model, asked = network_of(SMALL), probe(tmp_path)
    path = export_onnx(model, model.sizes, tmp_path / "model.onnx")

    def in_torch(batch: Batch) -> Tensor:
        logits: Tensor = model(batch).logits
        return logits

    subject = Subject(network=OnnxNetwork(path), probe=asked, seed=0, path=path, teacher=in_torch)
    of_file = examine(subject)
    of_model = examine(replace(subject, network=in_torch, path=None))
    assert of_file.bit_flips is not None
    assert of_model.bit_flips is None, "its weights are in no file"
    assert of_file.agreement is not None
    assert of_file.agreement.share == 1
    assert of_file.noise == of_model.noise
    assert of_file.word_swaps == of_model.word_swaps
    assert of_file.calibration is not None
    assert of_model.calibration is not None
    assert of_file.calibration.calibration_error == pytest.approx(
        of_model.calibration.calibration_error, abs=1e-4
    )
    assert examine(subject) == of_file
    written = of_file.to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written) == list(MEASURES)


def test_the_teacher_is_not_held_against_itself(tmp_path: Path) -> None:
    subject = Subject(network=knows_not, probe=probe(tmp_path), seed=0)
    assert examine(subject).agreement is None


APPLIES = {
    "texts": {"noise", "calibration", "word_swaps"},
    "pairs": {"noise", "calibration", "word_swaps"},
    "tags": {"noise", "calibration"},
    "vectors": {"noise"},
    "documents": {"noise"},
    "images": {"noise", "calibration"},
}


@pytest.mark.parametrize("name", list(APPLIES))
def test_every_task_has_the_measures_that_say_something_of_it(name: str, tmp_path: Path) -> None:
    asked: Probe = PROBES[name](tmp_path)
    shape = asked.shape

    def uniform(batch: Batch) -> Tensor:
        size = (len(batch.inputs), batch.attention_mask.shape[1])
        labels = 512 if name == "documents" else 64 if name == "vectors" else shape.num_labels
        return torch.ones(*size[: 2 if shape.answers_per_token else 1], labels)

    found = examine(Subject(network=uniform, probe=asked, seed=0)).to_dict()
    assert {key for key, value in found.items() if value is not None} == APPLIES[name]


def test_a_large_model_is_asked_for_fewer_rows_and_for_some_at_least() -> None:
    base = replace(
        ALL["bert"], num_layers=12, embed_dim=768, num_heads=12, head_dim=64, ffn_dim=3072
    )
    assert affordable_rows(SMALL, 16, 200) == 200
    short, long = (affordable_rows(base, seq_len, 200) for seq_len in (128, 256))
    assert 200 > short > long > MIN_ROWS
    assert MAX_FLOPS > 10 * 20e9, "BERT-base, of 22 GFLOP for 128 tokens, is asked for some"
    assert affordable_rows(replace(base, num_layers=96), 512, 200) == MIN_ROWS
    assert affordable_rows(replace(base, num_layers=96), 512, 5) == 5


def test_what_asks_often_is_asked_of_fewer_rows() -> None:
    rows = pixels().select([0, 1, 2, 3] * 5)
    asked = ImageProbe(shape=SHAPES["vit"], rows=rows)
    assert Subject(network=knows_not, probe=asked, seed=0).fewer_rows == 5
