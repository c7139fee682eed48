"""An exported file in use: what it answers for rows of a split, and how good that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from search.export.errors import converting
from search.model.transformer import Batch
from search.shape import ModelShape
from search.training.evaluate import Network, evaluate_one_by_one
from search.training.rows import Rows
from search.training.tasks import IGNORED, Scores

Feed = dict[str, npt.NDArray[Any]]


class OnnxNetwork:
    """A file, or the bytes of one, in ONNX Runtime on one thread."""

    def __init__(self, model: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        given = model if isinstance(model, bytes) else str(model)
        with converting("onnxruntime"):
            self._session = onnxruntime.InferenceSession(
                given, options, providers=["CPUExecutionProvider"]
            )
        self._wanted = {given.name for given in self._session.get_inputs()}

    def __call__(self, batch: Batch) -> Tensor:
        return torch.from_numpy(self._session.run(None, feed_of(batch, self._wanted))[0])


def feed_of(batch: Batch, wanted: set[str]) -> Feed:
    """Of a batch, the inputs of these names; all tokens are of type 0 unless it says otherwise."""
    given = {
        "input_ids": batch.inputs,
        "pixel_values": batch.inputs,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_types,
    }
    if "token_type_ids" in wanted and batch.token_types is None:
        given["token_type_ids"] = torch.zeros_like(batch.inputs)
    return {
        name: np.ascontiguousarray(value.numpy())
        for name, value in given.items()
        if name in wanted and value is not None
    }


def open_network(path: Path) -> Network:
    """By its suffix: .onnx, .xml (OpenVINO) or .pt2 (PyTorch); a blob has none and is ONNX.

    Raises:
        ExportFailed: its library does not load it.
    """
    # Each library is imported by those alone who have such files.
    if path.suffix == ".xml":
        from search.export.openvino_ir import OpenVinoNetwork

        return OpenVinoNetwork(path)
    if path.suffix == ".pt2":
        from search.export.exported_program import ExportedNetwork

        return ExportedNetwork(path)
    return OnnxNetwork(path)


def file_answers(path: Path, rows: Rows) -> Tensor:
    """See `open_network` and `answers_of`."""
    return answers_of(open_network(path), rows)


def answers_of(network: Network, rows: Rows) -> Tensor:
    """What `evaluate.predict` gives for a network, one row a call, as a deployed one is called."""
    answers = []
    for place in range(len(rows)):
        logits, labels = network(rows.batch([place])), rows.labels_of([place])
        answers.append(logits[labels != IGNORED] if logits.dim() == 3 else logits)
    return torch.cat(answers)


def evaluate_file(path: Path, rows: Rows, shape: ModelShape) -> Scores:
    """Score, loss and number of answers of every row."""
    return evaluate_one_by_one(open_network(path), rows, shape)
