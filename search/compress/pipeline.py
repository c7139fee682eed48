"""A recipe applied to a network: every stage measured before and after, and kept only if it helps.

What a stage does not buy is reported all the same: that is what a recipe is run for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import QuantizeConfig
from search.compress.network import Compressed, StageData, rows_read_by
from search.compress.recipe import CompressionRecipe, StageConfig
from search.compress.stages import apply_stage
from search.compress.suitability import is_simulated
from search.compress.vocabulary import fallen_share
from search.costs import peak_memory_bytes
from search.training.evaluate import evaluate

LatencyOf = Callable[[Compressed], float | None]
"""ms of a network where it is to run: measured, or predicted from its `SubnetConfig`; None where
that says nothing of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of a network between two stages.

    Attributes:
        quality: on the validation split.
        latency_ms: None where nothing measures or predicts it.
        num_zeros: of `num_params`, those that masks keep at zero.
        fallen_share: of the validation split's tokens, those that the vocabulary no longer has.
        size_bytes: of the weights as stored, zeros included.
    """

    quality: float
    latency_ms: float | None
    num_params: int
    num_zeros: int
    size_bytes: int
    flops: int
    peak_memory_bytes: int
    fallen_share: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressionTarget:
    """What a recipe is for: as little as can be of one cost, at no less than a quality.

    Attributes:
        cost: what stages are to lower; `latency_ms` needs something that tells it.
        min_quality: on the validation split. A stage that goes below is taken back, unless a later
            one may make up for it: see `grace`.
        grace: how far below `min_quality` a network may be as long as stages follow that train.
        max_latency_ms: no stage may make a network slower than this.
    """

    cost: Literal["latency_ms", "size_bytes", "flops", "num_params", "num_zeros"] = "latency_ms"
    min_quality: float = -float("inf")
    grace: float = 1.0
    max_latency_ms: float = float("inf")

    def saved(self, before: Figures, after: Figures) -> float:
        """Of the cost; 0 where a latency is not known."""
        values = [getattr(figures, self.cost) for figures in (before, after)]
        if None in values:
            return 0.0
        saved = float(values[0] - values[1])
        return -saved if self.cost == "num_zeros" else saved

    def exceeds(self, before: Figures, after: Figures) -> bool:
        """Whether a stage made the network too slow, which it was not, or not as much, before."""
        if before.latency_ms is None or after.latency_ms is None:
            return False
        return after.latency_ms > max(self.max_latency_ms, before.latency_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageReport:
    """What a stage did, and why it was kept or taken back.

    `is_simulated`: what it stores is what no runtime has. Its quality is that of such a device;
    its latency is that of the network in fp32, as a runtime would run it.
    """

    config: StageConfig
    before: Figures
    after: Figures
    is_kept: bool
    reason: str

    @property
    def is_simulated(self) -> bool:
        return isinstance(self.config, QuantizeConfig) and is_simulated(self.config.format)

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.config.to_dict(),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "is_kept": self.is_kept,
            "is_simulated": self.is_simulated,
            "reason": self.reason,
        }


def run_recipe(
    network: Compressed,
    recipe: CompressionRecipe,
    data: StageData,
    target: CompressionTarget | None,
    *,
    latency_of: LatencyOf | None = None,
    checkpoints: Path | None = None,
) -> Iterator[tuple[Compressed, StageReport]]:
    """Applies stage after stage; what each leaves and its report, as soon as it is done.

    Args:
        target: None keeps every stage whatever it buys: for experiments about orders.
        checkpoints: a folder that holds what every stage made: a run that was stopped goes on
            after the last of them, with the same result.
    """
    if target is not None and target.cost == "latency_ms" and latency_of is None:
        raise ValueError("latency_ms is the target's cost, and nothing tells it")
    before = figures_of(network, data, latency_of)
    for place, config in enumerate(recipe.stages):
        tried = _restored_or_applied(network, config, data, checkpoints, place)
        after = figures_of(tried, data, latency_of)
        is_kept, reason = judged(before, after, target, recipe.stages[place + 1 :])
        report = StageReport(
            config=config, before=before, after=after, is_kept=is_kept, reason=reason
        )
        if is_kept:
            network, before = tried, after
        yield network, report


def figures_of(network: Compressed, data: StageData, latency_of: LatencyOf | None) -> Figures:
    shape, subnet = network.model.shape, network.subnet
    sizes, rows = subnet.renumbered(), data.task.validation
    kept = network.kept_tokens
    with network.running() as model:
        quality = evaluate(model, rows_read_by(network, rows, data.tokenizer), sizes).value
    return Figures(
        quality=quality,
        latency_ms=None if latency_of is None else latency_of(network),
        num_params=network.num_params,
        num_zeros=network.num_zeros,
        size_bytes=network.size_bytes,
        flops=network.flops(data.seq_len),
        peak_memory_bytes=peak_memory_bytes(shape, subnet, seq_len=data.seq_len),
        fallen_share=0.0 if kept is None else fallen_share(rows, kept),
    )


def judged(
    before: Figures,
    after: Figures,
    target: CompressionTarget | None,
    following: Sequence[StageConfig],
) -> tuple[bool, str]:
    """Whether the stage helps the target, and why."""
    if target is None:
        return True, "every stage is kept"
    can_recover = any(stage.phase == "training" for stage in following)
    floor = target.min_quality - (target.grace if can_recover else 0.0)
    # What is too low already may rise without getting there at once.
    if after.quality < min(floor, before.quality):
        return False, f"quality {after.quality:.4f} is below {min(floor, before.quality):.4f}"
    if target.exceeds(before, after):
        return False, (
            f"{after.latency_ms:.3f} ms are more than the {target.max_latency_ms:.3f} ms allowed"
        )
    saved = target.saved(before, after)
    if saved > 0:
        return True, f"{'adds' if target.cost == 'num_zeros' else 'lowers'} {target.cost}"
    if saved == 0 and after.quality > before.quality:
        return True, f"raises quality by {after.quality - before.quality:.4f}"
    change = "adds" if target.cost == "num_zeros" else "lowers"
    return False, f"neither {change} {target.cost} nor raises quality"


# --- checkpoints --------------------------------------------------------------------------------


def _restored_or_applied(
    network: Compressed,
    config: StageConfig,
    data: StageData,
    checkpoints: Path | None,
    place: int,
) -> Compressed:
    if checkpoints is None:
        return apply_stage(network, config, data)
    path = checkpoints / f"stage-{place}.safetensors"
    if path.is_file():
        return load_compressed(path)
    found = apply_stage(network, config, data)
    # Whole or not at all: what a kill leaves under the other name is written anew.
    partial = path.with_suffix(".partial")
    save_compressed(found, partial)
    partial.rename(path)
    return found
