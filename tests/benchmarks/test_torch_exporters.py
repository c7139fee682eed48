"""PyTorch's exporters on a small BERT of transformers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.torch_exporters import INPUTS, _Classifier, write_exports
from tests.search import small

pytest.importorskip("transformers")


def test_every_exporter_gives_a_file_that_answers_as_the_model_or_says_why_not(
    tmp_path: Path,
) -> None:
    found = dict(write_exports(small.SHAPE, tmp_path, seq_len=8))
    assert len(found) == 6
    files = {name: file for name, file in found.items() if isinstance(file, Path)}
    assert "torchscript-17-eager" in files
    if find_spec("onnxscript") is None:
        assert all("onnxscript" in str(found[n]) for n in found if n.startswith("dynamo"))
    # Another batch size and length than those that were traced.
    ids = np.random.default_rng(0).integers(0, small.SHAPE.vocab_size, (3, 11))
    given = dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True))
    for name, file in files.items():
        torch.manual_seed(0)
        model = _Classifier(small.SHAPE, name.rpartition("-")[2]).eval()
        with torch.no_grad():
            expected = model(*(torch.from_numpy(value) for value in given.values()))
        answer = onnxruntime.InferenceSession(str(file)).run(None, given)[0]
        assert np.abs(answer - expected.numpy()).max() < 1e-4, name
