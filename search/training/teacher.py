"""The teacher's outputs, computed once a row and kept in memory for every later epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output
from search.training.batches import TokenRows, ordered_batches


class TeacherOutputs:
    """Logits and chosen hidden states of every row.

    Hidden states are kept in bfloat16: 2 bytes x tokens x embed_dim a layer, 150 MB a layer for
    200,000 tokens of 384. Their noise is far below what a student can follow.
    """

    def __init__(
        self, teacher: ElasticTransformer, rows: TokenRows, hidden_layers: tuple[int, ...]
    ) -> None:
        """`hidden_layers` are layers of the teacher, 0 the first."""
        self._offsets = rows.offsets
        self._num_layers = teacher.sizes.num_layers
        self._logits = torch.empty(len(rows), teacher.shape.num_labels)
        self._hidden = {
            layer: torch.empty(len(rows.tokens), teacher.shape.embed_dim, dtype=torch.bfloat16)
            for layer in hidden_layers
        }
        teacher.eval()
        with torch.no_grad():
            for places, batch in ordered_batches(rows):
                self._store(places, teacher(batch))

    def _store(self, places: list[int], output: Output) -> None:
        self._logits[places] = output.logits
        for layer, kept in self._hidden.items():
            for row, place in enumerate(places):
                start, end = self._offsets[place], self._offsets[place + 1]
                kept[start:end] = output.hidden[layer + 1][row, : end - start]

    def __call__(self, places: list[int], batch: Batch) -> Output:
        """As the teacher itself would answer; layers that were not kept are empty tensors."""
        hidden = [torch.empty(0)] * (self._num_layers + 1)
        for layer, kept in self._hidden.items():
            hidden[layer + 1] = self._padded(kept, places, batch)
        return Output(self._logits[places], tuple(hidden))

    def _padded(self, kept: Tensor, places: list[int], batch: Batch) -> Tensor:
        padded = torch.zeros(*batch.inputs.shape, kept.shape[1])
        for row, place in enumerate(places):
            start, end = self._offsets[place], self._offsets[place + 1]
            padded[row, : end - start] = kept[start:end]
        return padded
