"""Rows of tokens, and what a teacher says of them, in the ids of a vocabulary that was trimmed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from search.compress.distill import TaskData
from search.compress.pieces import Spec, replacements
from search.model.transformer import Batch, Output
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.order import to_device
from search.training.supernet import TargetOf
from search.training.tasks import IGNORED


@dataclass(frozen=True, slots=True)
class Reread:
    """Rows in new ids.

    Attributes:
        sources: of every token, which one of its row it was made from.
    """

    rows: TokenRows
    sources: TokenRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Rereading:
    """From the ids of a tokenizer to those of what was left of it.

    A token that fell away becomes the smaller pieces that it is tokenized into, so that rows may
    get longer. Where a word's other tokens would join those pieces, re-encoding its text with the
    trimmed tokenizer finds longer ones; rows do not have their texts.

    Attributes:
        shape: of the network that reads the new ids.
        kept: old ids that stay, (kept,), ascending: their places are the new ids.
        pieces: new ids, those of old id i at `starts[i]:starts[i + 1]`.
    """

    shape: ModelShape
    kept: Tensor
    pieces: Tensor
    starts: Tensor

    @classmethod
    def of(cls, tokenizer: Spec, kept: Tensor, shape: ModelShape) -> Self:
        """Args: tokenizer: the one that made the rows, and that `kept` was chosen from."""
        found = replacements(tokenizer, kept.tolist())
        pieces = [found.get(old, ()) for old in range(max(found) + 1)]
        starts = torch.tensor([0, *map(len, pieces)]).cumsum(0)
        flat = torch.tensor([new for some in pieces for new in some])
        return cls(shape=shape, kept=kept, pieces=flat, starts=starts)

    def task(self, task: TaskData) -> TaskData:
        assert isinstance(task.train, TokenRows)
        assert isinstance(task.validation, TokenRows)
        train = self.reread(task.train)
        return replace(
            task,
            train=train.rows,
            validation=self.reread(task.validation).rows,
            target_of=self._target_of(task.target_of, task.train, train.sources),
        )

    def reread(self, rows: TokenRows) -> Reread:
        """Rows that got too long are cut; all but a decoder's keep their last token."""
        old = rows.tokens.long()
        counts = self.starts.diff()[old]
        source = torch.arange(len(old)).repeat_interleave(counts)
        place = _places(counts)  # of each piece in its token
        tokens = self.pieces[self.starts[old[source]] + place]
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        offsets = ends[rows.offsets]
        labels = rows.labels
        if rows.has_token_labels:
            is_last = place == counts[source] - 1
            labels = self._token_labels(labels[source], tokens, place, is_last)
        types = None if rows.token_types is None else rows.token_types[source]
        row_starts = rows.offsets[:-1].repeat_interleave(offsets.diff())
        found = TokenRows(tokens.int(), offsets, labels, types, rows.has_token_labels)
        sources = TokenRows((source - row_starts).int(), offsets, torch.zeros(len(rows)))
        return Reread(self._cut(found), self._cut(sources))

    def _token_labels(
        self, labels: Tensor, tokens: Tensor, place: Tensor, is_last: Tensor
    ) -> Tensor:
        """A token's tag is its first piece's; what follows a piece is the next one, and what
        follows a token begins with the first piece of the next."""
        if self.shape.task != "language-modelling":
            return torch.where(place == 0, labels, IGNORED)
        following = self.pieces[self.starts[labels]]
        return torch.where(is_last, following, tokens.roll(-1))

    def _cut(self, rows: TokenRows) -> TokenRows:
        longest = self.shape.max_seq_len
        if int(rows.lengths.max()) <= longest:
            return rows
        place, lengths = _places(rows.lengths), rows.lengths.repeat_interleave(rows.lengths)
        stays = place < longest
        if not self.shape.is_causal:
            # The last token is one that the model expects at the end.
            stays = (place < longest - 1) | (place == lengths - 1)
        return TokenRows(
            rows.tokens[stays],
            torch.cat([torch.zeros(1), rows.lengths.clamp(max=longest)]).long().cumsum(0),
            rows.labels[stays] if rows.has_token_labels else rows.labels,
            None if rows.token_types is None else rows.token_types[stays],
            rows.has_token_labels,
        )

    # --- the teacher ------------------------------------------------------------------------

    def _target_of(self, target_of: TargetOf, rows: TokenRows, sources: TokenRows) -> TargetOf:
        """The teacher goes on reading its own ids; every piece learns from what it says of the
        token that the piece was made from."""

        def target(places: list[int], batch: Batch) -> Output:
            device = batch.inputs.device
            output = target_of(places, to_device(rows.batch(places), device))
            source_BT = sources.batch(places).inputs.to(device)
            logits = output.logits
            # Who is asked for relations alone has no answers.
            if self.shape.answers_per_token and logits.numel():
                logits = _at(source_BT, logits)
            if self.shape.task == "language-modelling" and logits.numel():
                logits = logits[..., self.kept.to(device)]

            def by_token(heads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return tuple(_at(source_BT, x.transpose(1, 2)).transpose(1, 2) for x in heads)

            return Output(
                logits,
                tuple(_at(source_BT, x) if x.numel() else x for x in output.hidden),
                by_token(output.relations),
                tuple(by_token(layer) for layer in output.attention),
            )

        return target


def _places(counts: Tensor) -> Tensor:
    """0, 1, ... for each of the counts, one after the other."""
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum())) - starts.repeat_interleave(counts)


def _at(source_BT: Tensor, x: Tensor) -> Tensor:
    """(B, T, ...): of x (B, S, ...) what stands at the places `source_BT` of each row."""
    rows = torch.arange(len(source_BT), device=source_BT.device)[:, None]
    return x[rows, source_BT]
