"""An exported file in use: what it answers for rows of a split, and how good that is."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from search.model.transformer import Batch, Output
from search.shape import ModelShape
from search.training.rows import Rows
from search.training.tasks import IGNORED, Scores, task_of


class OnnxNetwork:
    """A file in ONNX Runtime on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._wanted = {given.name for given in self._session.get_inputs()}

    def __call__(self, batch: Batch) -> Tensor:
        """Logits, or the vectors of a model without a head."""
        given = {
            "input_ids": batch.inputs,
            "pixel_values": batch.inputs,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_types,
        }
        feed = {
            name: value.numpy()
            for name, value in given.items()
            if name in self._wanted and value is not None
        }
        return torch.from_numpy(self._session.run(None, feed)[0])


def file_answers(path: Path, rows: Rows) -> Tensor:
    """What `evaluate.predict` gives for a network, one row a call, as a deployed one is called."""
    network = OnnxNetwork(path)
    answers = []
    for place in range(len(rows)):
        logits, labels = network(rows.batch([place])), rows.labels_of([place])
        answers.append(logits[labels != IGNORED] if logits.dim() == 3 else logits)
    return torch.cat(answers)


def evaluate_file(path: Path, rows: Rows, shape: ModelShape) -> Scores:
    """Score, loss and number of answers of every row."""
    network, task = OnnxNetwork(path), task_of(shape)
    sums = torch.zeros(3, len(rows), dtype=torch.float64)
    for place in range(len(rows)):
        output = Output(network(rows.batch([place])), ())
        found = task.scores(output, rows.labels_of([place]))
        sums[:, place] = torch.cat([found.score, found.loss, found.count])
    return Scores(*sums)
