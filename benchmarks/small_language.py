"""A task on which subnets differ clearly and train in seconds: bytes of Python's own source.

A small GPT predicts the next byte of the standard library's modules, which every Python carries.
Quality is the log-likelihood of a byte in nats: 48,000 answers a network, so that hundredths of a
nat are told apart. Files are divided, not lines: no text of a file is in both splits.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from search.model.reorder import measure_importance, rank_layers, reorder_
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from search.training.batches import TokenRows
from search.training.evaluate import evaluate
from search.training.loop import LossesAt, TrainingRun
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.tasks import task_of
from search.training.together import divergences

SEQ_LEN = 64
BATCH_SIZE = 32
NUM_BYTES = 256
SHAPE = ModelShape(
    family="gpt2",
    num_layers=4,
    embed_dim=64,
    num_heads=4,
    head_dim=16,
    ffn_dim=256,
    vocab_size=NUM_BYTES,
    max_seq_len=SEQ_LEN,
    num_token_types=0,
    num_labels=NUM_BYTES,
    norm_eps=1e-5,
    task="language-modelling",
    is_causal=True,
    norm_first=True,
    activation="gelu_tanh",
    has_tied_head=True,
)
SPACE = SearchSpace(
    num_layers=(1, 2, 3, 4),
    num_heads=(1, 2, 4),
    ffn_dim=(32, 64, 128, 256),
    precision=("fp32",),
    layer_order=tuple(range(SHAPE.num_layers)),
)
IMPORTANCE_BATCHES = 16
RANKING_ROWS = 128


@dataclass(frozen=True, slots=True)
class Splits:
    train: TokenRows
    held: TokenRows


def read_source(num_train: int, num_held: int) -> Splits:
    """Windows of `SEQ_LEN` bytes at random places of the standard library's modules."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "idlelib"}
    files = sorted(
        path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts)
    )
    random.Random(0).shuffle(files)
    return Splits(_windows(files[1::2], num_train, 1), _windows(files[::20], num_held, 2))


def _windows(files: Sequence[Path], count: int, seed: int) -> TokenRows:
    text = torch.frombuffer(bytearray(b"".join(f.read_bytes() for f in files)), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(text) - SEQ_LEN, (count, 1), generator=generator)
    places = starts + torch.arange(SEQ_LEN)
    offsets = torch.arange(0, count * SEQ_LEN + 1, SEQ_LEN)
    labels = text[places + 1].flatten().long()
    return TokenRows(text[places].flatten().int(), offsets, labels, has_token_labels=True)


def new_network(seed: int, sizes: SubnetConfig | None = None) -> ElasticTransformer:
    """Without dropout: every text is seen once."""
    torch.manual_seed(seed)
    return ElasticTransformer(SHAPE, sizes, dropout=0.0)


def copy_of(model: ElasticTransformer) -> ElasticTransformer:
    copied = new_network(0, model.sizes)
    copied.load_state_dict(model.state_dict())
    return copied


def train(
    model: ElasticTransformer,
    losses_at: LossesAt,
    *,
    num_steps: int,
    learning_rate: float,
    seed: int,
    restart_at: int = 0,
) -> None:
    schedule = Schedule(learning_rate=learning_rate, total_steps=num_steps, restart_at=restart_at)
    TrainingRun(model, schedule, seed=seed).advance(losses_at, should_stop=lambda: False)


def train_plainly(
    model: ElasticTransformer,
    rows: TokenRows,
    *,
    num_steps: int,
    learning_rate: float,
    seed: int,
) -> None:
    """On the labels alone, the whole network."""
    order = BatchOrder(rows, BATCH_SIZE, seed)
    losses_at = finetuning_losses(model, order)
    train(model, losses_at, num_steps=num_steps, learning_rate=learning_rate, seed=seed)


def reorder_by_importance_(model: ElasticTransformer, splits: Splits) -> tuple[int, ...]:
    """Sorts heads, neurons and features in place; the layers from the most important on."""
    order = BatchOrder(splits.train, BATCH_SIZE, 0)
    batches = (order[step][1:] for step in range(IMPORTANCE_BATCHES))
    reorder_(model, measure_importance(model, batches, task_of(SHAPE).loss))
    rows = splits.held.spread(RANKING_ROWS)
    return rank_layers(lambda s: divergences(model, rows, s), SubnetConfig.full(SHAPE))


def log_likelihood(
    model: ElasticTransformer, rows: TokenRows, subnet: SubnetConfig | None = None
) -> float:
    """Of a byte, in nats: higher is better."""
    return evaluate(model, rows, subnet).value


@torch.no_grad()
def accuracy(
    model: ElasticTransformer, rows: TokenRows, subnet: SubnetConfig | None = None
) -> float:
    """Share of bytes that are the likeliest next one."""
    model.eval()
    right = 0
    for start in range(0, len(rows), 64):
        places = list(range(start, min(start + 64, len(rows))))
        logits: Tensor = model(rows.batch(places), subnet).logits
        right += int((logits.argmax(-1) == rows.labels_of(places)).sum())
    return right / len(rows.tokens)


def chosen_subnets(space: SearchSpace, count: int) -> list[SubnetConfig]:
    """Half of them with all layers alike, half with every layer drawn by itself; no extremes.

    Uniform ones are spread over their sizes; drawn ones are all of about the middle size, and so
    are the hard part of a ranking.
    """
    extremes = {space.smallest, space.largest}
    alike = sorted((s for s in space.uniform() if s not in extremes), key=_size_key)
    chosen = [alike[place * len(alike) // (count // 2)] for place in range(count // 2)]
    rng = random.Random(1)
    while len(chosen) < count:
        subnet = space.sample(rng)
        if subnet not in extremes and subnet not in chosen:
            chosen.append(subnet)
    return chosen


def _size_key(subnet: SubnetConfig) -> tuple[int, str]:
    return num_params_of_layers(subnet), subnet.fingerprint


def num_params_of_layers(subnet: SubnetConfig) -> int:
    """Of matrices: what subnets of one width differ in."""
    dim, head_dim = SHAPE.embed_dim, SHAPE.head_dim
    return sum(
        4 * dim * heads * head_dim + 2 * dim * ffn
        for heads, ffn in zip(subnet.num_heads, subnet.ffn_dim, strict=True)
    )
