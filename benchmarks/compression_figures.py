"""How far compression gets: MiniLM on the movie sentences, against the unsearched fp32 model.

Recipes, of pruned networks and of such as a search found in a supernet, are chosen on the
validation split among those small or fast enough; the test split says how good the chosen ones
are. All files are timed in one session on one thread, batch 1, 64 tokens, in ONNX Runtime, beside
those that PyTorch's exporters write of a BERT of the same sizes. What was done stays in the
state's folder, and a run that was stopped goes on from there.

python -m benchmarks.compression_figures [--quick] [--state DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import candidates, wanted
from benchmarks.common import report_result
from benchmarks.delivered import Delivered, Timed, compared, deliver, time_all
from benchmarks.equal_terms import paired_points, share_between
from benchmarks.exported import ExportedNetwork
from benchmarks.found_subnets import searched_for_speeds
from benchmarks.int8_vectors import Int8Variant, int8_variants
from benchmarks.kept import Kept
from benchmarks.recipe_runs import Ran, RecipeRuns, spelled
from benchmarks.structures import KEEPS, largest_within, structures
from benchmarks.subjects import prepare
from benchmarks.techniques import Stages, within_budget
from benchmarks.torch_exporters import write_exports
from search.compress.network import Compressed
from search.compress.recipe import stage_from_dict
from search.space import SubnetConfig

STATE = Path(".snugnet/compression-figures")
EPOCHS, QUICK_EPOCHS = 1.2, 0.15
TENTH = 0.1  # of the training, after which recovery is asked for
ORIGINAL = "the original"
Fits = Callable[[Delivered], bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little of everything, nothing kept")
    parser.add_argument("--state", type=Path, metavar="DIR", help="of what was done so far")
    parser.add_argument("--threads", type=int, default=2, help="of training; measured is with 1")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    is_quick = arguments.quick
    state = arguments.state or STATE.with_name(f"{STATE.name}{'-quick' * is_quick}")
    start = time.perf_counter()
    figures = _Study(state, is_quick=is_quick).figures()
    figures["minutes_of_this_run"] = round((time.perf_counter() - start) / 60, 1)
    report_result("compression_figures", figures, keep=not is_quick)
    for one in figures["figures"]:
        mark = "met" if one["is_met"] else "not met"
        print(f"{one['what']}: {one['found']} ({one['wanted']}, {mark})")
    return 0


class _Study:
    def __init__(self, state: Path, *, is_quick: bool) -> None:
        self._state, self._is_quick = state, is_quick
        self._epochs = QUICK_EPOCHS if is_quick else EPOCHS
        self._subject = prepare("bert", state, is_quick=is_quick)
        whole = self._subject.whole
        self._runs = RecipeRuns(whole, self._subject.data, state / "stages")
        self._original = self._deliver(ORIGINAL, whole, "whole")
        self._delivered: dict[str, Delivered] = {}
        self._networks: dict[str, Callable[[], Compressed]] = {}

    def figures(self) -> dict[str, Any]:
        for stages in self._recipes():
            self._make(stages, self._epochs)
        for times, network in searched_for_speeds(
            self._subject, self._state, wanted.SPEEDS
        ).items():
            for stages in candidates.SEARCHED:
                self._make_searched(times, network, stages)
        short = self._make(candidates.RECOVERY[1], TENTH * self._epochs)
        variants = self._int8_variants()
        seq_len = self._subject.job.workload.seq_len
        folder = self._folder("exports")
        exports = dict(write_exports(self._subject.shape, folder, seq_len=seq_len))
        found = {name: file for name, file in exports.items() if isinstance(file, Path)}
        timed = self._time(variants, found)
        latencies_ms = timed.latencies_ms
        return {
            "workload": self._subject.job.workload.to_dict(),
            "rows": {split: len(rows) for split, rows in self._subject.rows.items()},
            "session": timed.session,
            "steps_of_a_recipe": self._subject.data.num_steps(self._epochs),
            "original": self._described(self._original, latencies_ms, is_chosen=True),
            "figures": [
                *self._sizes(latencies_ms),
                *self._speeds(latencies_ms),
                *self._int8(variants, latencies_ms),
                self._export(exports, latencies_ms),
                self._sparsity(),
                self._recovery(short),
            ],
            "recipes": [self._described(one, latencies_ms) for one in self._delivered.values()],
        }

    # --- what is made ---------------------------------------------------------------------------

    def _recipes(self) -> Iterator[Stages]:
        yield from (*candidates.SMALLER, *candidates.SMALLEST, *candidates.ROUNDED)
        yield from (*candidates.RECOVERY, *candidates.SPARSITY)
        for configs in self._fast_enough().values():
            for config in configs:
                yield candidates.faster(stage_from_dict(config))

    def _fast_enough(self) -> Mapping[str, Any]:
        """Structures by how many times faster they are in int8, as plain data."""
        kept = Kept(self._state)
        found = kept.figures("fast-enough")
        if found is None:
            keeps = KEEPS[::3] if self._is_quick else KEEPS
            original_ms, tried = structures(self._subject, keeps=keeps)
            found = {
                str(times): [
                    one.config.to_dict() for one in largest_within(tried, original_ms / times)
                ]
                for times in wanted.SPEEDS
            }
            kept.save_figures("fast-enough", found)
        return found

    def _make(self, stages: Stages, epochs: float) -> Delivered:
        ran = self._runs.run(self._within(stages, epochs))
        name = spelled(stages) + ("" if epochs == self._epochs else ", a tenth of the training")
        return self._judged(name, ran)

    def _make_searched(self, times: int, network: Compressed, stages: Stages) -> Delivered:
        """It begins with a supernet's weights, whose training is not in the budget."""
        runs = RecipeRuns(network, self._subject.data, self._state / "stages")
        name = f"searched for {times} times the speed, {spelled(stages)}"
        return self._judged(name, runs.run(self._within(stages, self._epochs)))

    def _within(self, stages: Stages, epochs: float) -> Stages:
        rate = self._subject.effort.learning_rate
        return within_budget(stages, epochs=epochs, learning_rate=rate)

    def _judged(self, name: str, ran: Ran) -> Delivered:
        one = self._deliver(name, ran.network, ran.key)
        self._delivered[name] = one
        kept = one.scores["validation"].mean()
        print(f"{name}: {kept:.1%} on the validation split, {ran.seconds:.0f} s", flush=True)
        return one

    def _deliver(self, name: str, network: Compressed, key: str) -> Delivered:
        return deliver(
            name,
            network,
            self._subject,
            self._folder("files") / key,
            splits=("validation", "test"),
        )

    def _int8_variants(self) -> list[Int8Variant]:
        aware = self._within(candidates.ROUNDED[1], self._epochs)
        return int8_variants(
            {"rounded": self._subject.whole, "trained under it": self._runs.run(aware).network},
            self._subject.rows["validation"],
            self._deliver,
        )

    def _time(self, variants: list[Int8Variant], exports: Mapping[str, Path]) -> Timed:
        pairs = (file for one in variants for file in (one.int8, one.own))
        ours = {one.name: one for one in (self._original, *self._delivered.values(), *pairs)}
        full = SubnetConfig.full(self._subject.shape)
        others = [
            ExportedNetwork(name=name, subnet=full, file=file, timed=file, agreement=1.0)
            for name, file in exports.items()
        ]
        return time_all(list(ours.values()), self._subject, others)

    def _folder(self, name: str) -> Path:
        path = self._state / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    # --- what is asked --------------------------------------------------------------------------

    def _sizes(self, latencies_ms: Mapping[str, float]) -> Iterator[dict[str, Any]]:
        limit = wanted.SMALLER_SHARE * self._original.figures["file_bytes"]

        def is_small(one: Delivered) -> bool:
            return bool(one.figures["file_bytes"] <= limit)

        def is_small_float(one: Delivered) -> bool:
            return is_small(one) and one.figures["precision"] == "fp32"

        yield self._best(wanted.FP32_SIZE, is_small_float, latencies_ms)
        yield self._best(wanted.ANY_SIZE, is_small, latencies_ms)
        keeping = [
            one for one in self._delivered.values() if self._kept(one) >= wanted.SMALLEST_KEPT
        ]
        smallest = min(keeping, key=lambda one: float(one.figures["file_bytes"]), default=None)
        if smallest is None:
            yield wanted.SMALLEST.outcome(None)
            return
        is_true = self._kept(smallest, "test") >= wanted.SMALLEST_KEPT
        megabytes = smallest.figures["file_bytes"] / 1e6
        details = self._described(smallest, latencies_ms, is_chosen=True)
        yield wanted.SMALLEST.outcome(megabytes if is_true else None, recipe=details)

    def _speeds(self, latencies_ms: Mapping[str, float]) -> Iterator[dict[str, Any]]:
        for times in wanted.SPEEDS:
            limit_ms = latencies_ms[ORIGINAL] / times

            def is_fast(one: Delivered, limit_ms: float = limit_ms) -> bool:
                return latencies_ms[one.name] <= limit_ms

            yield self._best(wanted.faster(times), is_fast, latencies_ms)

    def _best(
        self, want: wanted.Want, fits: Fits, latencies_ms: Mapping[str, float]
    ) -> dict[str, Any]:
        """What the most accurate of those that fit keeps; chosen on the validation split."""
        fitting = [one for one in self._delivered.values() if fits(one)]
        if not fitting:
            return want.outcome(None)
        best = max(fitting, key=self._kept)
        details = self._described(best, latencies_ms, is_chosen=True)
        return want.outcome(self._kept(best, "test"), recipe=details)

    def _int8(
        self, variants: list[Int8Variant], latencies_ms: Mapping[str, float]
    ) -> Iterator[dict[str, Any]]:
        """Of the fastest variant that is near enough on the validation split, or the nearest."""
        near = [v for v in variants if v.cosines["mean"] >= wanted.INT8_COSINE.bound]
        best = (
            min(near, key=lambda v: latencies_ms[v.int8.name])
            if near
            else max(variants, key=lambda v: v.cosines["mean"])
        )
        loss = paired_points(best.own.scores["test"] > 0.5, best.int8.scores["test"] > 0.5)
        rows = self._subject.rows["test"]
        details = [
            {
                "name": v.int8.name,
                "cosines": v.cosines,
                "speedup": latencies_ms[v.own.name] / latencies_ms[v.int8.name],
            }
            for v in variants
        ]
        yield wanted.INT8_LOSS.outcome(loss["points"], recipe=best.int8.name, interval=loss)
        yield wanted.INT8_COSINE.outcome(
            best.cosines_on(rows)["mean"], recipe=best.int8.name, on_validation=details
        )

    def _export(
        self, exports: Mapping[str, Path | str], latencies_ms: Mapping[str, float]
    ) -> dict[str, Any]:
        ours_ms = latencies_ms[ORIGINAL]
        theirs = {
            name: latencies_ms[name] for name, file in exports.items() if name in latencies_ms
        }
        missing = {name: file for name, file in exports.items() if isinstance(file, str)}
        ratio = ours_ms / min(theirs.values()) if theirs else None
        return wanted.EXPORT.outcome(ratio, ours_ms=ours_ms, theirs_ms=theirs, missing=missing)

    def _sparsity(self) -> dict[str, Any]:
        magnitude, second = (self._delivered[spelled(s)] for s in candidates.SPARSITY)
        found = paired_points(second.scores["test"] > 0.5, magnitude.scores["test"] > 0.5)
        qualities = {one.name: float(one.scores["test"].mean()) for one in (magnitude, second)}
        return wanted.SPARSE.outcome(found["points"], interval=found, qualities=qualities)

    def _recovery(self, short: Delivered) -> dict[str, Any]:
        pruned, taught = (self._delivered[spelled(s)] for s in candidates.RECOVERY)
        scores = [one.scores["test"] for one in (pruned, self._original, short, taught)]
        found, whole = (share_between(scores[0], scores[1], s) for s in scores[2:])
        qualities = {one.name: float(one.scores["test"].mean()) for one in (pruned, short, taught)}
        return wanted.RECOVERY.outcome(
            found["share"], interval=found, after_all=whole, qualities=qualities
        )

    def _kept(self, one: Delivered, split: str = "validation") -> float:
        return float(compared(one, self._original, self._subject, split)["kept"])

    def _described(
        self, one: Delivered, latencies_ms: Mapping[str, float], *, is_chosen: bool = False
    ) -> dict[str, Any]:
        """The test split is shown of what was chosen alone."""
        splits = ("validation", "test") if is_chosen else ("validation",)
        return {
            "name": one.name,
            **{split: compared(one, self._original, self._subject, split) for split in splits},
            "p50_ms": latencies_ms[one.name],
            "speedup": latencies_ms[ORIGINAL] / latencies_ms[one.name],
            **one.figures,
        }


if __name__ == "__main__":
    raise SystemExit(main())
