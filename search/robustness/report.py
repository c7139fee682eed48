"""All that is measured of how one network holds, and on how many rows it can be afforded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from search.costs import flops
from search.export.running import OnnxNetwork
from search.robustness.agreement import Agreement, measure_agreement
from search.robustness.bitflips import BitFlips, OpenModel, measure_bit_flips
from search.robustness.calibration import Calibration, measure_calibration
from search.robustness.noise import Noise, measure_noise
from search.robustness.probe import Probe, TextProbe
from search.robustness.wordswaps import WordSwaps, measure_word_swaps
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.evaluate import Network

# Of the five measures together for each row: 4 passes with and without noise, 3 for what is
# right and agreed on, and for a quarter of the rows 21 with flipped bits and at most 17 for words.
PASSES_PER_ROW = 7 + (21 + 17) / 4
SHARE_OF_ROWS = 4
MIN_ROWS = 8
# Of one file: two minutes of one core that does 80 GFLOP in a second.
MAX_FLOPS = 1e13
# Flipping bits holds a file five times in memory.
MAX_FLIPPED_BYTES = 2**30

CLASSIFIERS = (
    *("text-classification", "pair-classification"),
    *("token-classification", "image-classification"),
)


class Measured(Protocol):
    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network that is looked at, and what for.

    Attributes:
        network: it in use; that of the file where there is one.
        path: its exported file; None for a network in torch, whose bits are in no file.
        teacher: what it is to agree with; None for that one itself.
        teacher_probe: the same texts as the teacher reads them, if its vocabulary is another.
        open_model: see `measure_bit_flips`.
    """

    network: Network
    probe: Probe
    seed: int
    path: Path | None = None
    teacher: Network | None = None
    teacher_probe: Probe | None = None
    open_model: OpenModel = OnnxNetwork

    @property
    def fewer_rows(self) -> int:
        """Rows for what asks the network many times about each."""
        return max(1, len(self.probe.rows) // SHARE_OF_ROWS)


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessReport:
    """None where a measure says nothing of such a network."""

    noise: Noise | None
    calibration: Calibration | None
    agreement: Agreement | None
    bit_flips: BitFlips | None
    word_swaps: WordSwaps | None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Measured | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part and part.to_dict() for name, part in found.items()}


def examine(subject: Subject) -> RobustnessReport:
    """All measures, one after another; the same network, probe and seed give the same report."""
    found: dict[str, Any] = {name: measure(subject) for name, measure in MEASURES.items()}
    return RobustnessReport(**found)


def affordable_rows(shape: ModelShape, seq_len: int, wanted: int) -> int:
    """At most `wanted`, and no more than keep a file below `MAX_FLOPS`.

    By the FLOPs of the unsearched model and not by the clock: all files are asked for the same
    rows, on every machine.

    Args:
        seq_len: tokens of a row, on average.
    """
    each = flops(shape, SubnetConfig.full(shape), seq_len=max(1, seq_len))
    return min(wanted, max(MIN_ROWS, int(MAX_FLOPS / (PASSES_PER_ROW * each))))


def _noise(subject: Subject) -> Noise:
    return measure_noise(subject.network, subject.probe, seed=subject.seed)


def _calibration(subject: Subject) -> Calibration | None:
    if subject.probe.shape.task not in CLASSIFIERS:
        return None
    return measure_calibration(subject.network, subject.probe.rows, seed=subject.seed)


def _agreement(subject: Subject) -> Agreement | None:
    if subject.teacher is None:
        return None
    probe, other = subject.probe, subject.teacher_probe
    if other is not None and probe.shape.task == "language-modelling":
        return None  # their next tokens are of two vocabularies
    return measure_agreement(
        subject.network,
        subject.teacher,
        probe.rows,
        probe.shape,
        teacher_rows=None if other is None else other.rows,
    )


def _bit_flips(subject: Subject) -> BitFlips | None:
    if subject.path is None or subject.path.stat().st_size > MAX_FLIPPED_BYTES:
        return None
    return measure_bit_flips(
        subject.path,
        subject.probe.rows.spread(subject.fewer_rows),
        subject.probe.shape,
        seed=subject.seed,
        open_model=subject.open_model,
    )


def _word_swaps(subject: Subject) -> WordSwaps | None:
    probe = subject.probe
    if not isinstance(probe, TextProbe) or not probe.has_classes:
        return None
    return measure_word_swaps(
        subject.network, probe, seed=subject.seed, num_rows=subject.fewer_rows
    )


MEASURES: Mapping[str, Callable[[Subject], Measured | None]] = {
    "noise": _noise,
    "calibration": _calibration,
    "agreement": _agreement,
    "bit_flips": _bit_flips,
    "word_swaps": _word_swaps,
}
assert list(MEASURES) == [field.name for field in fields(RobustnessReport)]
