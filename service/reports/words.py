"""Figures and choices as people read them, the same on every page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from service.jobs.job_spec import TargetSpec
from service.reports.charts import Axis
from service.web.formats import NONE, as_ms, as_percent

QUALITY_WORDS = {
    "accuracy": "accuracy",
    "cosine": "cosine to the unsearched model",
    "log_likelihood": "log-likelihood of a token",
}
SOURCE_WORDS = {
    "search": "search",
    "earlier": "known from an earlier job",
    "random": "random search",
    "uniform": "uniform scaling",
    "flops": "search for few FLOPs",
}
STAGE_WORDS = {
    "search": "found",
    "unsearched": "unsearched",
    "shortlist": "raced",
    "distill": "distilled",
    "export": "exported",
    "quantize": "quantized",
    "measure": "measured",
    "report": "test split",
}


FIELD_OF_TARGET = re.compile(r"targets\[(\d+)\](\.budget_(ms|ratio))?")


def in_words(message: str) -> str:
    """A sentence of the API's, which names fields of the job, as the pages call them."""
    return FIELD_OF_TARGET.sub(r"target \1", message)


def targets_phrase(indices: Sequence[int]) -> str:
    """ "target 0", "targets 0 and 1", "targets 0, 1 and 2"."""
    *before, last = (str(index) for index in indices)
    return f"targets {', '.join(before)} and {last}" if before else f"target {last}"


def quality_axis(metric: str) -> Axis:
    if metric == "log_likelihood":
        return Axis(label=QUALITY_WORDS[metric], unit="nats")
    if metric == "cosine":
        return Axis(label=QUALITY_WORDS[metric])
    return Axis(label=QUALITY_WORDS.get(metric, metric.replace("_", " ")), form="percent")


def quality_text(quality: float | None, metric: str) -> str:
    if quality is None:
        return NONE
    if metric == "log_likelihood":
        return f"perplexity {math.exp(-quality):.2f}"
    return f"{quality:.3f}" if metric == "cosine" else as_percent(quality)


def source_word(source: str) -> str:
    return SOURCE_WORDS.get(source, source)


def times_text(factor: float | None) -> str:
    return NONE if factor is None else f"{factor:.2f}×"


def promise_sentence(target: TargetSpec) -> str:
    """A target as somebody would say it."""
    budget = (
        f"within {as_ms(target.budget_ms)}"
        if target.budget_ms is not None
        else f"within {100 * (target.budget_ratio or 0):.4g} % of the unsearched model's latency"
    )
    workload = target.workload
    size = f"batch {workload.batch_size}"
    if workload.seq_len is not None:
        size += f", {workload.seq_len} tokens"
    threads = f"{workload.threads} thread{'' if workload.threads == 1 else 's'}"
    provider = "" if workload.provider == "cpu" else f" ({workload.provider})"
    lowest = (
        ""
        if target.min_quality is None
        else f", with a quality of {target.min_quality:g} at least"
    )
    return (
        f"{target.statistic} {budget} on {target.device}, in {workload.runtime}{provider}: "
        f"{size}, {threads}{lowest}"
    )
