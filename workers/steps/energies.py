"""Energy of an inference, for jobs that weigh it: learnt from the sessions that time networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from predictors.device import Device
from predictors.energy_predictor import EnergyPredictor, energy_noise_floor, energy_rows_of
from predictors.features import macs_per_byte
from predictors.report import fit_and_report
from predictors.spec import MeasuringResult
from search.errors import InvalidInput
from search.objectives import ENERGY, Floats
from search.space import SubnetConfig
from workers.context import JobContext
from workers.steps import learning
from workers.steps.learning import Curriculum
from workers.steps.state import State

TOO_MUCH = 10.0  # times what the unsearched model spends


class Energies:
    """Predicted energies of a search: those of the first target's profiles, by their place."""

    def __init__(self, predictors: Mapping[int, EnergyPredictor]) -> None:
        self._predictors = dict(predictors)
        self._highest_mj = TOO_MUCH * max(p.reference_mj for p in predictors.values())

    @classmethod
    def of(cls, ctx: JobContext, state: State) -> Energies | None:
        """None where the job does not weigh energy."""
        if not _is_asked(ctx):
            return None
        places = state.profiles_of_target[0]
        return cls({place: _load(ctx, state.profiles[place].energy_predictor) for place in places})

    def mean_mj(self, subnets: Sequence[SubnetConfig], profiles: npt.NDArray[np.int64]) -> Floats:
        """Each in the profile that it would run in; where that does not build its precision, it
        counts as far too much."""
        found = np.full(len(subnets), self._highest_mj)
        for place, predictor in self._predictors.items():
            where = [
                i
                for i, (subnet, profile) in enumerate(zip(subnets, profiles, strict=True))
                if profile == place and subnet.precision in predictor.precisions
            ]
            if where:
                energies_mj = predictor.predict_mj([subnets[i] for i in where])
                found[where] = np.minimum(energies_mj, self._highest_mj)
        return found


def recall(ctx: JobContext, state: State, curriculum: Curriculum) -> State | None:
    """With a fresh predictor of the current profile's energy, where the job wants one; None where
    it has to be measured first."""
    if not _is_wanted(ctx, state):
        return state
    known = learning.stored_predictor(
        ctx,
        curriculum,
        max_age_seconds=3600 * ctx.spec.measuring.max_age_hours,
        quantity="energy",
    )
    return None if known is None else _with_predictor(ctx, state, EnergyPredictor(known[0]))


def learn(
    ctx: JobContext, state: State, curriculum: Curriculum, results: Sequence[MeasuringResult]
) -> State:
    """With a predictor of the current profile's energy, fitted to `results` and kept; unchanged
    where the job wants none.

    Raises:
        InvalidInput: the device measured the energy of too few networks.
    """
    if not _is_wanted(ctx, state):
        return state
    workload, shape = curriculum.workload, curriculum.shape
    training = [row for result in results for row in energy_rows_of(result, workload, "n")]
    holdout = [row for result in results for row in energy_rows_of(result, workload, "h")]
    if not (training and holdout):
        raise InvalidInput(
            "search.objectives",
            f"the device measured no energy, so {ENERGY.name} cannot be predicted; let its agent "
            "read energy_uj of every package in /sys/class/powercap, or leave it out",
        )
    device = Device.from_dict(ctx.device(curriculum.device_id).identity)
    keys = learning.keys_of(device, workload, curriculum.space, "energy")
    fitted, report = fit_and_report(
        training,
        holdout,
        keys=keys,
        shape=shape,
        workload=workload,
        macs_per_byte={p: macs_per_byte(results[-1].peaks, p) for p in keys},
        noise_floor=energy_noise_floor(results),
        sources={p: ctx.source_predictors(key, shape) for p, key in keys.items()},
    )
    learning.save(ctx, curriculum.device_id, fitted, report.to_dict())
    predictor = EnergyPredictor(fitted)
    ctx.event(
        "onboarded",
        f"{workload.runtime}: unsearched model {predictor.reference_mj:.2f} mJ, predictor of "
        f"energy off by {report.mape:.1%} on unseen networks",
        {"reference_mj": predictor.reference_mj, "energy_fit_report": report.to_dict()},
    )
    return _with_predictor(ctx, state, predictor)


def _is_asked(ctx: JobContext) -> bool:
    return ENERGY.name in ctx.spec.search.objectives


def _is_wanted(ctx: JobContext, state: State) -> bool:
    """Of the current profile: energy is weighed where the first target may run."""
    return _is_asked(ctx) and state.current_profile in state.profiles_of_target[0]


def _with_predictor(ctx: JobContext, state: State, predictor: EnergyPredictor) -> State:
    path = ctx.scratch / "energy-predictor.json"
    path.write_text(json.dumps(predictor.to_json()))
    return state.with_profile(energy_predictor=ctx.put_blob(path))


def _load(ctx: JobContext, predictor: str | None) -> EnergyPredictor:
    assert predictor is not None, "onboarding has stored it"
    return EnergyPredictor.from_json(json.loads(ctx.blob(predictor).read_text()))
