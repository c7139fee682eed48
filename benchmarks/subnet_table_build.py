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
from benchmarks.subnet_table import Entry, write_table
from examples.movie_reviews.prepare import model_folder, prepare_data
from search.data.dataset import read_dataset
from search.genotypes import all_networks
from search.model.importing import import_model
from search.model.reorder import measure_importance, rank_layers, reorder_
from search.model.transformer import Batch, ElasticTransformer, Pass
from search.space import PRECISIONS, SearchSpace, SubnetConfig
from search.training.batches import ordered_batches
from search.training.encoding import encode_splits
from search.training.evaluate import divergence, evaluate
from search.training.loop import LossesAt, TrainingRun, load_weights_, save_weights
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import finetuning_losses, freeze_words_, supernet_losses
from search.training.tasks import task_of
from search.training.teacher import TeacherOutputs

# At most four choices a layer, far apart: 2,720 networks.
SPACE = SearchSpace(
    num_layers=(2, 3, 4, 5),
    num_heads=(4, 12),
    ffn_dim=(384, 1536),
    precision=PRECISIONS,
    layer_order=tuple(range(MINILM.num_layers)),
)
SEED = 0
MAX_SEQ_LEN = 64
BATCH_SIZE = 32
LEARNING_RATE = 5e-5
TEACHER_EPOCHS, SUPERNET_EPOCHS = 2, 3
IMPORTANCE_BATCHES = 12
RANKING_ROWS = 256
EVALUATION_BATCH = 128


def build_table(path: Path, state: Path, *, num_rows: int) -> None:
    """Trains the supernet, unless `state` holds one, evaluates all of it and writes the CSV.

    Whether each network was right on each row is kept in `state`/right.npy, in the table's order.
    """
    state.mkdir(parents=True, exist_ok=True)
    train, search = _read_rows(state)
    supernet, space = _trained(state, train, search)
    rows = search.spread(num_rows)
    subnets = [subnet for _, subnet in all_networks(space)]
    logits_of = {}
    for subnet, logits in evaluate_all(supernet, rows, subnets):
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


# --- the supernet ------------------------------------------------------------------------------


def _read_rows(state: Path) -> tuple[Rows, Rows]:
    """Training and search split."""
    data = read_dataset(prepare_data(state))
    splits = data.split(SEED)
    rows = dict(encode_splits(data, splits, model_folder(), MINILM, max_seq_len=MAX_SEQ_LEN))
    return rows["train"], rows["search"]


def _trained(state: Path, train: Rows, search: Rows) -> tuple[ElasticTransformer, SearchSpace]:
    teacher = import_model(model_folder(), MINILM, SEED)
    order = BatchOrder(train, BATCH_SIZE, SEED)
    _train(state / "teacher.safetensors", teacher, finetuning_losses(teacher, order), order)
    layer_order = _reorder_(teacher, order, search.spread(RANKING_ROWS))
    space = SPACE.with_layer_order(layer_order)
    print(f"layers from the most to the least important: {layer_order}", flush=True)
    target_of = TeacherOutputs(teacher, train, tuple(range(MINILM.num_layers)))
    supernet = teacher
    freeze_words_(supernet)
    order = BatchOrder(train, BATCH_SIZE, SEED + 1)
    total_steps = round(SUPERNET_EPOCHS * order.steps_per_epoch)
    sampler = SubnetSampler(space, Sampling(), total_steps=total_steps, seed=SEED)
    loss = DistillationLoss.for_shape(MINILM)
    losses_at = supernet_losses(supernet, order, sampler, target_of, loss)
    _train(state / "supernet.safetensors", supernet, losses_at, order, is_supernet=True)
    for name, subnet in (("largest", space.largest), ("smallest", space.smallest)):
        quality = evaluate(supernet, search, subnet.with_precision("fp32")).value
        print(f"{name} subnet {quality:.1%}", flush=True)
    return supernet, space


def _reorder_(teacher: ElasticTransformer, order: BatchOrder, rows: Rows) -> tuple[int, ...]:
    """Sorts heads and neurons by importance; the layers from the most important on."""
    batches = (order[step][1:] for step in range(IMPORTANCE_BATCHES))
    importance = measure_importance(teacher, batches, task_of(MINILM).loss)
    reorder_(teacher, importance)
    return rank_layers(lambda subnet: divergence(teacher, rows, subnet), SubnetConfig.full(MINILM))


def _train(
    path: Path,
    model: ElasticTransformer,
    losses_at: LossesAt,
    order: BatchOrder,
    *,
    is_supernet: bool = False,
) -> None:
    """Trains, or loads what an earlier run trained."""
    if path.is_file():
        load_weights_(model, path)
        return
    epochs = SUPERNET_EPOCHS if is_supernet else TEACHER_EPOCHS
    schedule = Schedule(
        learning_rate=LEARNING_RATE * (2 if is_supernet else 1),
        total_steps=round(epochs * order.steps_per_epoch),
    )
    run = TrainingRun(model, schedule, seed=SEED + is_supernet)

    def report() -> bool:
        if run.step % 50 == 0:
            print(f"{path.stem}: step {run.step} of {schedule.total_steps}", flush=True)
        return False

    run.advance(losses_at, should_stop=report)
    save_weights(model, path)
