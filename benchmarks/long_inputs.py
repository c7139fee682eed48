"""Linear attention against softmax on long inputs: what it saves, and what it costs in quality.

Networks of MiniLM's sizes with a position table that is long enough, weights at random, in ONNX
Runtime, one thread, batch 1, by turns. The time is the thread's own (what it spent computing), so
that it is the latency of a machine that does nothing else. Then MiniLM, taught to tell good
movie-review sentences from bad ones, is given linear attention and learns from itself.

    python -m benchmarks.long_inputs [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.common import MINILM, report_result
from benchmarks.movie_supernet import MAX_SEQ_LEN, SEED, read_rows
from examples.movie_reviews.prepare import model_folder
from search.compress.configs import DistillConfig, LinearizeAttentionConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.stages import apply_stage
from search.costs import flops, peak_memory_bytes
from search.export.graph import build_onnx
from search.model.importing import import_model
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.evaluate import predict
from search.training.loop import TrainingRun
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses, freeze_words_
from search.training.teacher import teacher_of

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
KINDS = ("softmax", "linear")
NUM_WORDS = 1000  # of a table that is only timed
SECONDS = 8.0  # for each length
MIN_ROUNDS, MAX_ROUNDS = 3, 30
STATE = Path(".snugnet/long-inputs")
BATCH_SIZE = 16
NUM_TRAIN, NUM_TEST = 1200, 600
TEACHER_EPOCHS, STUDENT_EPOCHS = 1.0, 2.0
LEARNING_RATES = (5e-5, 1e-4)  # of the teacher, and of the student


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.long_inputs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short inputs, few steps; no record")
    is_quick = parser.parse_args(arguments).quick
    torch.set_num_threads(1)
    lengths, rounds = (LENGTHS[:2], 2) if is_quick else (LENGTHS, None)
    figures = {
        "latency": [latencies(num_tokens, rounds=rounds) for num_tokens in lengths],
        "quality": _quality(is_quick=is_quick),
    }
    report_result("long_inputs", figures, keep=not is_quick)


# --- what it saves ------------------------------------------------------------------------------


def latencies(num_tokens: int, *, rounds: int | None = None) -> dict[str, Any]:
    """Of both networks at one length; `rounds` None: as many as fit into `SECONDS`."""
    shapes = {kind: replace(MINILM, max_seq_len=LENGTHS[-1], attention=kind) for kind in KINDS}
    subnet = SubnetConfig.full(MINILM)
    sessions = {kind: _session(shape, subnet) for kind, shape in shapes.items()}
    rng = np.random.default_rng(num_tokens)
    feed = {
        "input_ids": rng.integers(0, NUM_WORDS, (1, num_tokens)),
        "attention_mask": np.ones((1, num_tokens), dtype=np.int64),
    }
    first = {kind: _run_ms(session, feed) for kind, session in sessions.items()}
    if rounds is None:
        fitting = round(1000 * SECONDS / sum(first.values()))
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, fitting))
    ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for round_ in range(rounds):
        for kind in KINDS if round_ % 2 else KINDS[::-1]:
            ms[kind].append(_run_ms(sessions[kind], feed))
    ratios = [a / b for a, b in zip(ms["linear"], ms["softmax"], strict=True)]
    return {
        "num_tokens": num_tokens,
        "rounds": rounds,
        "median_ms": {kind: round(median(values), 2) for kind, values in ms.items()},
        "ratio": {
            "median": round(median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
            "flops": round(_of(shapes, flops, num_tokens), 3),
            "peak_memory": round(_of(shapes, peak_memory_bytes, num_tokens), 3),
        },
        "raw_ms": {kind: [round(value, 3) for value in values] for kind, values in ms.items()},
    }


def _session(shape: ModelShape, subnet: SubnetConfig) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = build_onnx(shape, subnet, None, vocab_size=NUM_WORDS, seed=SEED)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run_ms(session: onnxruntime.InferenceSession, feed: Mapping[str, Any]) -> float:
    """With one thread the caller's computes all of it."""
    start = time.thread_time()
    session.run(None, feed)
    return 1000 * (time.thread_time() - start)


def _of(shapes: Mapping[str, ModelShape], cost: Callable[..., int], num_tokens: int) -> float:
    """Linear attention's share of what softmax costs on paper."""
    costs = {k: cost(s, SubnetConfig.full(s), seq_len=num_tokens) for k, s in shapes.items()}
    return costs["linear"] / costs["softmax"]


# --- what it costs ------------------------------------------------------------------------------


def _quality(*, is_quick: bool) -> dict[str, Any]:
    rows = read_rows(STATE)
    train = rows["train"].spread(64 if is_quick else NUM_TRAIN)
    test = rows["test"].spread(64 if is_quick else NUM_TEST)
    teacher = import_model(model_folder(), MINILM, SEED)
    freeze_words_(teacher)
    order = BatchOrder(train, BATCH_SIZE, SEED)
    steps = round(TEACHER_EPOCHS * order.steps_per_epoch)
    run = TrainingRun(
        teacher, Schedule(learning_rate=LEARNING_RATES[0], total_steps=steps), seed=SEED
    )
    run.advance(finetuning_losses(teacher, order), should_stop=lambda: False)
    task = TaskData(train, test, teacher_of(teacher.eval(), train), BATCH_SIZE)
    data = StageData(task=task, seq_len=MAX_SEQ_LEN, seed=SEED)
    linear = apply_stage(Compressed.whole(teacher), LinearizeAttentionConfig(), data)
    labels = test.labels_of(range(len(test)))
    answers = predict(teacher, test).argmax(1)

    def judged(found: Tensor) -> dict[str, float]:
        return {
            "accuracy": float((found == labels).float().mean()),
            "agreement": float((found == answers).float().mean()),
        }

    stage = DistillConfig(epochs=STUDENT_EPOCHS, learning_rate=LEARNING_RATES[1])
    taught = apply_stage(linear, stage, data)
    return {
        "sentences": {"train": len(train), "test": len(test)},
        "epochs": {"teacher": TEACHER_EPOCHS, "student": STUDENT_EPOCHS},
        "softmax": judged(answers),
        "linear_untrained": judged(predict(linear.model, test).argmax(1)),
        "linear_taught": judged(predict(taught.model, test).argmax(1)),
    }


if __name__ == "__main__":
    main()
