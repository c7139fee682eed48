"""The teacher's outputs: computed once a row and kept for every epoch, or asked each time."""

from __future__ import annotations

import torch
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output, Pass
from search.shape import ModelShape
from search.training.batches import ordered_batches
from search.training.order import to_device
from search.training.rows import Rows

CPU = torch.device("cpu")
MAX_KEPT_BYTES = 4 * 1024**3
BYTES_PER_HIDDEN = 2


def teacher_of(
    teacher: ElasticTransformer,
    rows: Rows,
    *,
    relations: bool = False,
    attention: bool = False,
    max_bytes: int = MAX_KEPT_BYTES,
) -> TeacherOutputs | LiveTeacher:
    """Every layer's outputs kept if they fit into `max_bytes`, else the teacher itself."""
    needed = kept_bytes(teacher.shape, rows.lengths, relations=relations, attention=attention)
    if needed > max_bytes:
        return LiveTeacher(teacher, attention=attention)
    layers = tuple(range(teacher.sizes.num_layers))
    return TeacherOutputs(teacher, rows, layers, relations=relations, attention=attention)


def kept_bytes(
    shape: ModelShape, lengths: Tensor, *, relations: bool, attention: bool = False
) -> int:
    """Bytes that `TeacherOutputs` takes for rows of so many tokens, all layers being kept."""
    tokens = int(lengths.sum())
    features = shape.num_layers * shape.embed_dim
    if relations:
        features += (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    if attention:
        features += shape.num_layers * (shape.num_heads + shape.num_kv_heads) * shape.head_dim
    per_token = BYTES_PER_HIDDEN * features
    if shape.task == "language-modelling":
        return tokens * (per_token + 4 * shape.embed_dim)
    answers = tokens if shape.answers_per_token else len(lengths)
    return tokens * per_token + 4 * answers * (shape.num_labels or shape.embed_dim)


Tokens = tuple[Tensor, Tensor]
"""Of a batch, where its tokens are kept, and which of them are no padding: (rows, tokens) each."""


class LiveTeacher:
    """Asks the teacher for every batch: its forward pass, and no memory."""

    def __init__(self, teacher: ElasticTransformer, *, attention: bool = False) -> None:
        self._teacher = teacher.eval()
        self._has_attention = attention

    @torch.no_grad()
    def __call__(self, places: list[int], batch: Batch) -> Output:
        del places
        return _asked(self._teacher, batch, attention=self._has_attention)


class TeacherOutputs:
    """Answers of every row, and of chosen layers hidden states and, if asked for, attention; of
    the last one its relations.

    They are in bfloat16: 2 bytes x tokens x embed_dim a layer, 150 MB a layer for 200,000 tokens
    of 384; their noise is far below what a student can follow. Logits are in float32, except
    those of a vocabulary, which would be a hundred times as large as all else: they are computed
    again from the last hidden state, kept in float32 for that.
    """

    def __init__(
        self,
        teacher: ElasticTransformer,
        rows: Rows,
        hidden_layers: tuple[int, ...],
        *,
        relations: bool = False,
        attention: bool = False,
    ) -> None:
        """`hidden_layers` are layers of the teacher, 0 the first."""
        self._teacher = teacher
        self._shape = teacher.shape
        self._device = next(teacher.parameters()).device
        self._store_device = _store_device(
            self._device,
            kept_bytes(teacher.shape, rows.lengths, relations=relations, attention=attention),
        )
        self._offsets = torch.cat([torch.zeros(1), rows.lengths]).long().cumsum(0)
        self._kept: dict[str, Tensor] = {}
        self._layers = hidden_layers
        self._has_relations = relations
        self._has_attention = attention
        teacher.eval()
        with torch.no_grad():
            for places, batch in ordered_batches(rows):
                output = _asked(teacher, to_device(batch, self._device), attention=attention)
                tokens = self._tokens_of(places, batch)
                for name, values in self._to_keep(output).items():
                    self._store(name, values, places, tokens, len(rows))

    def __call__(self, places: list[int], batch: Batch) -> Output:
        """As the teacher itself would answer, where the batch is; layers that were not kept are
        empty tensors."""
        tokens = self._tokens_of(places, batch)
        hidden = [torch.empty(0)] * (self._teacher.sizes.num_layers + 1)
        for layer in self._layers:
            hidden[layer + 1] = self._padded(f"hidden/{layer}", tokens).float()
        relations: tuple[Tensor, ...] = ()
        if self._has_relations:
            relations = tuple(
                self._padded(name, tokens).float().transpose(1, 2) for name in _RELATIONS
            )
        attention = self._attention(tokens)
        found = Output(self._logits(places, batch, tokens), tuple(hidden), relations, attention)
        return found.to(batch.inputs.device)

    @property
    def num_bytes(self) -> int:
        return sum(kept.numel() * kept.element_size() for kept in self._kept.values())

    def _to_keep(self, output: Output) -> dict[str, Tensor]:
        """By name: (rows, features), or (rows, tokens, ...)."""
        kept = {f"hidden/{la}": output.hidden[la + 1].bfloat16() for la in self._layers}
        if self._has_relations:
            for name, values_BHTN in zip(_RELATIONS, output.relations, strict=True):
                kept[name] = values_BHTN.transpose(1, 2).bfloat16()
        if self._has_attention:
            for layer in self._layers:
                for name, values_BHTN in zip(_ATTENTION, output.attention[layer], strict=True):
                    kept[f"{name}/{layer}"] = values_BHTN.transpose(1, 2).bfloat16()
        if self._shape.task == "language-modelling":
            return kept | {"last": output.hidden[-1]}
        return kept | {"logits": output.logits}

    def _store(
        self, name: str, values: Tensor, places: list[int], tokens: Tokens, num_rows: int
    ) -> None:
        has_tokens = self._has_tokens(name)
        if name not in self._kept:
            size = (int(self._offsets[-1]), *values.shape[2:])
            shape = size if has_tokens else (num_rows, *values.shape[1:])
            self._kept[name] = torch.empty(shape, dtype=values.dtype, device=self._store_device)
        kept, values = self._kept[name], values.to(self._store_device)
        if has_tokens:
            tokens_RT, is_real_RT = tokens
            kept[tokens_RT[is_real_RT]] = values[is_real_RT]
        else:
            kept[places] = values

    def _has_tokens(self, name: str) -> bool:
        return name != "logits" or self._shape.answers_per_token

    def _attention(self, tokens: Tokens) -> tuple[tuple[Tensor, ...], ...]:
        if not self._has_attention:
            return ()
        found: list[tuple[Tensor, ...]] = [()] * self._teacher.sizes.num_layers
        for layer in self._layers:
            parts = (self._padded(f"{name}/{layer}", tokens) for name in _ATTENTION)
            found[layer] = tuple(part.float().transpose(1, 2) for part in parts)
        return tuple(found)

    def _logits(self, places: list[int], batch: Batch, tokens: Tokens) -> Tensor:
        if self._shape.task == "language-modelling":
            last_BTD = self._padded("last", tokens)
            shared = Pass(self._teacher.sizes, torch.empty(0), None, None, None)
            with torch.no_grad():
                return self._teacher.answer(last_BTD, batch, shared)
        if self._shape.answers_per_token:
            return self._padded("logits", tokens)
        return self._kept["logits"][places].to(self._device)

    def _padded(self, name: str, tokens: Tokens) -> Tensor:
        """Of every token of a batch, (rows, tokens, ...); zeros where the batch has padding."""
        tokens_RT, is_real_RT = tokens
        padded = self._kept[name][tokens_RT]
        padded[~is_real_RT] = 0
        return padded.to(self._device)

    def _tokens_of(self, places: list[int], batch: Batch) -> Tokens:
        starts, ends = self._offsets[places], self._offsets[[place + 1 for place in places]]
        tokens_RT = starts[:, None] + torch.arange(batch.attention_mask.shape[1])
        is_real_RT = tokens_RT < ends[:, None]
        tokens_RT = tokens_RT.clamp(max=int(self._offsets[-1]) - 1)
        return tokens_RT.to(self._store_device), is_real_RT.to(self._store_device)


def _asked(teacher: ElasticTransformer, batch: Batch, *, attention: bool) -> Output:
    """The teacher's outputs where the batch is."""
    output: Output = teacher(readable(teacher, batch), with_attention=attention)
    return output.to(batch.inputs.device)


def readable(teacher: ElasticTransformer, batch: Batch) -> Batch:
    """The batch where the teacher is; without token types for one that knows none."""
    if not teacher.shape.num_token_types:
        batch = batch._replace(token_types=None)
    return to_device(batch, next(teacher.parameters()).device)


def _store_device(device: torch.device, num_bytes: int) -> torch.device:
    """With the teacher where it fits into half of what is free: a GPU would wait for copies."""
    if device.type != "cuda":
        return CPU
    free, _ = torch.cuda.mem_get_info(device)
    return device if num_bytes < free / 2 else CPU


_RELATIONS = ("queries", "keys", "values")
_ATTENTION = _RELATIONS[:2]
