"""Quality on rows with noise, beside that on the same rows without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.robustness.probe import Probe
from search.training.confidence import Interval, interval
from search.training.evaluate import Network, evaluate_one_by_one
from search.training.tasks import Scores, task_of

RATES = (0.02, 0.05, 0.10)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseLevel:
    rate: float
    quality: float
    interval: Interval
    """Of 95 %, of this network by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """What each level of noise leaves.

    Attributes:
        kind: what was disturbed, `letters` or `pixels`.
        metric: what qualities are; `clean` is that without noise.
    """

    kind: str
    metric: str
    clean: float
    levels: tuple[NoiseLevel, ...]
    num_rows: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "levels": [asdict(level) for level in self.levels]}


def measure_noise(
    network: Network, probe: Probe, *, seed: int, rates: Sequence[float] = RATES
) -> Noise:
    clean = evaluate_one_by_one(network, probe.rows, probe.shape)
    levels = []
    for rate in rates:
        noised = evaluate_one_by_one(network, probe.noised(rate, seed), probe.shape)
        levels.append(_level(rate, noised, float(clean.count.sum())))
    return Noise(
        kind=probe.noise,
        metric=task_of(probe.shape).metric,
        clean=float(clean.score.sum() / clean.count.sum()),
        levels=tuple(levels),
        num_rows=len(probe.rows),
    )


def _level(rate: float, noised: Scores, num_answers: float) -> NoiseLevel:
    """By as many answers as the clean rows have.

    Mistyped text has more tokens: a language model's likelihood of the text is what compares, not
    that of a token of it; and a word that no longer fits counts as wrong.
    """
    counts = noised.count * (num_answers / float(noised.count.sum()))
    return NoiseLevel(
        rate=rate,
        quality=float(noised.score.sum()) / num_answers,
        interval=interval(noised.score.numpy(), counts.numpy()),
    )
