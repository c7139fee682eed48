"""What a step of supernet training takes, in which precision, and what else it waits for.

One sandwich step (largest, smallest and a random subnet, distilled from the teacher) of MiniLM's
sizes and, on a GPU, of BERT base's, in every precision that the processor has, by turns in one
run. Then where the teacher's answers come from (kept in memory, or asked for each batch), and what
`torch.compile` makes of the one network whose sizes never change. Weights and tokens are random:
neither changes how long a step takes.

python -m benchmarks.training_speed [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks.common import MINILM, report_result
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.space import SearchSpace
from search.training.batches import TokenRows
from search.training.distributed import training_device
from search.training.loop import TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.precision import autocast, choose_precision, products_in
from search.training.sampling import Sampling, SubnetSampler
from search.training.supernet import TargetOf, supernet_losses
from search.training.tasks import task_of
from search.training.teacher import LiveTeacher, TeacherOutputs

BERT_BASE = replace(MINILM, num_layers=12, embed_dim=768, head_dim=64, ffn_dim=3072)
BATCH_SIZE = 32
NUM_ROWS = 512
SEED = 0

Step = Callable[[], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few steps, nothing kept")
    is_quick = parser.parse_args().quick
    device = training_device()
    rounds = 3 if is_quick else 20
    cases = {"minilm-64-tokens": (MINILM, 64)}
    if device.type == "cuda":
        cases["bert-base-128-tokens"] = (BERT_BASE, 128)
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }
    for name, (shape, seq_len) in cases.items():
        figures[name] = _Steps(shape, seq_len, device).figures(rounds, with_compiled=not is_quick)
    name = "training_speed" if device.type == "cpu" else "training_speed_gpu"
    report_result(name, figures, keep=not is_quick)
    return 0


class _Steps:
    """Of one shape on one device."""

    def __init__(self, shape: ModelShape, seq_len: int, device: torch.device) -> None:
        torch.manual_seed(SEED)
        self._shape, self._device = shape, device
        self._rows = _random_rows(shape, seq_len)
        self._order = BatchOrder(self._rows, BATCH_SIZE, SEED, device=device)
        self._teacher = ElasticTransformer(shape).to(device)

    def figures(self, rounds: int, *, with_compiled: bool) -> dict[str, Any]:
        layers = tuple(range(self._shape.num_layers))
        kept = TeacherOutputs(self._teacher, self._rows, layers)
        live = LiveTeacher(self._teacher)
        steps = {name: self._step(name, kept) for name in self._precisions()}
        ms = _median_ms(steps, rounds, self._device)
        figures: dict[str, Any] = {
            "auto_chooses": choose_precision("auto", self._shape, self._device),
            "step_ms": ms,
            "step_ratio": _ratios(ms, "fp32"),
            "teacher_ms": _median_ms(
                {"kept": self._asked(kept), "live": self._asked(live)}, rounds, self._device
            ),
        }
        if with_compiled:
            figures["compiled"] = self._compiled(rounds)
        return figures

    def _precisions(self) -> tuple[str, ...]:
        return (
            ("fp32", "tf32", "bf16", "fp16") if self._device.type == "cuda" else ("fp32", "bf16")
        )

    def _step(self, precision: str, target_of: TargetOf) -> Step:
        """The next step of a training of its own."""
        model = ElasticTransformer(self._shape).to(self._device)
        schedule = Schedule(learning_rate=1e-4, total_steps=100_000)
        run = TrainingRun(model, schedule, seed=SEED, precision=precision)
        sampler = SubnetSampler(
            SearchSpace.for_shape(self._shape), Sampling(), total_steps=100_000, seed=SEED
        )
        loss = DistillationLoss.for_shape(self._shape)
        losses_at = supernet_losses(model, self._order, sampler, target_of, loss)

        return lambda: run.advance(losses_at, should_stop=lambda: True)

    def _asked(self, target_of: TargetOf) -> Step:
        places, batch, _ = self._order[0]
        return lambda: target_of(places, batch)

    def _compiled(self, rounds: int) -> dict[str, Any]:
        """Forward and backward pass of the largest network, compiled and not."""
        precision = choose_precision("auto", self._shape, self._device)
        model = ElasticTransformer(self._shape).to(self._device)
        compiled = torch.compile(model, dynamic=True)
        start = time.perf_counter()
        self._pass(compiled, precision)()
        seconds = time.perf_counter() - start
        ms = _median_ms(
            {"eager": self._pass(model, precision), "compiled": self._pass(compiled, precision)},
            rounds,
            self._device,
        )
        return {"precision": precision, "seconds_to_compile": round(seconds, 1), "pass_ms": ms}

    def _pass(self, model: Callable[..., Any], precision: str) -> Step:
        _, batch, labels = self._order[0]
        task = task_of(self._shape)

        def step() -> None:
            with products_in(precision):
                with autocast(precision, self._device):
                    loss = task.loss(model(batch), labels)
                torch.autograd.backward(loss)

        return step


def _random_rows(shape: ModelShape, seq_len: int) -> TokenRows:
    tokens = torch.randint(1000, shape.vocab_size, (NUM_ROWS * seq_len,), dtype=torch.int32)
    offsets = torch.arange(NUM_ROWS + 1) * seq_len
    return TokenRows(tokens, offsets, torch.arange(NUM_ROWS) % shape.num_labels)


def _median_ms(steps: Mapping[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    """Of each, taken by turns, after a few that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: round(1000 * median(values), 3) for name, values in times.items()}


def _ratios(ms: Mapping[str, float], base: str) -> dict[str, float]:
    return {name: round(value / ms[base], 3) for name, value in ms.items()}


if __name__ == "__main__":
    raise SystemExit(main())
