"""Makes the table of a real supernet: MiniLM on the demo's movie sentences, as a job trains it.

Then every network of the space is evaluated on the same rows. Networks that begin alike share the
hidden states of their leading layers: a walk over the tree of layers runs each node once, which
costs little more than one layer a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import MINILM
from benchmarks.movie_supernet import read_rows, trained
from benchmarks.subnet_table import Entry, write_table
from search.genotypes import all_networks
from search.model.transformer import Batch, ElasticTransformer, Pass
from search.space import PRECISIONS, SearchSpace, SubnetConfig
from search.training.batches import ordered_batches
from search.training.rows import Rows

# At most four choices a layer, far apart: 2,720 networks.
SPACE = SearchSpace(
    num_layers=(2, 3, 4, 5),
    num_heads=(4, 12),
    ffn_dim=(384, 1536),
    precision=PRECISIONS,
    layer_order=tuple(range(MINILM.num_layers)),
)
TEACHER_EPOCHS, SUPERNET_EPOCHS = 2, 3
EVALUATION_BATCH = 128


def build_table(path: Path, state: Path, *, num_rows: int) -> None:
    """Trains the supernet, unless `state` holds one, evaluates all of it and writes the CSV.

    Whether each network was right on each row is kept in `state`/right.npy, in the table's order.
    """
    state.mkdir(parents=True, exist_ok=True)
    splits = read_rows(state)
    found = trained(
        state, splits, SPACE, teacher_epochs=TEACHER_EPOCHS, supernet_epochs=SUPERNET_EPOCHS
    )
    rows = splits["search"].spread(num_rows)
    subnets = [subnet for _, subnet in all_networks(found.space)]
    logits_of = {}
    for subnet, logits in evaluate_all(found.model, rows, subnets):
        logits_of[subnet] = logits
        if len(logits_of) % 100 == 0:
            print(f"{len(logits_of)} of {len(subnets)} networks", flush=True)
    labels = rows.labels_of(range(len(rows)))
    write_table(path, (_entry(subnet, logits_of[subnet], labels) for subnet in subnets))
    right = [(logits_of[subnet].argmax(-1) == labels).numpy() for subnet in subnets]
    np.save(state / "right.npy", np.packbits(right, axis=1))


def evaluate_all(
    model: ElasticTransformer, rows: Rows, subnets: Sequence[SubnetConfig]
) -> Iterator[tuple[SubnetConfig, Tensor]]:
    """Every subnet with its logits (rows, labels), as if each were run by itself."""
    places, batches = zip(*ordered_batches(rows, EVALUATION_BATCH), strict=True)
    order = torch.tensor([place for part in places for place in part]).argsort()
    model.eval()
    for precision in PRECISIONS:
        chosen = sorted((s for s in subnets if s.precision == precision), key=_path)
        if chosen:
            with torch.no_grad():
                begun = [model.begin(batch, chosen[0]) for batch in batches]
            walk = _Walk(model, batches, [shared for _, shared in begun])
            for subnet, logits in walk.below(0, [x_BTD for x_BTD, _ in begun], chosen):
                yield subnet, logits[order]


@dataclass(frozen=True, slots=True)
class _Walk:
    """Depth first over the tree of layers; a node's hidden states live until it is left."""

    model: ElasticTransformer
    batches: Sequence[Batch]
    shared: Sequence[Pass]

    def below(
        self, depth: int, hidden: Sequence[Tensor], subnets: Sequence[SubnetConfig]
    ) -> Iterator[tuple[SubnetConfig, Tensor]]:
        """Logits of `subnets`, sorted, which are alike in their first `depth` layers."""
        for layer, group in groupby(subnets, key=lambda subnet: _path(subnet)[depth : depth + 1]):
            alike = list(group)
            if layer:
                yield from self.below(depth + 1, self._run(depth, hidden, alike[0]), alike)
            else:
                yield alike[0], self._answer(hidden, alike[0])

    @torch.no_grad()
    def _run(self, depth: int, hidden: Sequence[Tensor], subnet: SubnetConfig) -> list[Tensor]:
        return [
            self.model.run_layer(depth, x_BTD, replace(shared, subnet=subnet))[0]
            for x_BTD, shared in zip(hidden, self.shared, strict=True)
        ]

    @torch.no_grad()
    def _answer(self, hidden: Sequence[Tensor], subnet: SubnetConfig) -> Tensor:
        parts = zip(hidden, self.batches, self.shared, strict=True)
        return torch.cat(
            [self.model.answer(x, batch, replace(s, subnet=subnet)) for x, batch, s in parts]
        )


def _path(subnet: SubnetConfig) -> tuple[tuple[int, int, int], ...]:
    return tuple(zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True))


def _entry(subnet: SubnetConfig, logits: Tensor, labels: Tensor) -> Entry:
    return Entry(
        subnet=subnet,
        num_right=int((logits.argmax(-1) == labels).sum()),
        num_rows=len(labels),
        loss=float(F.cross_entropy(logits, labels)),
    )
