"""The devices and workloads of a job's targets: each is learnt and measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from predictors.device import Device
from predictors.workload import Workload
from search.errors import InvalidInput
from search.objectives import ENERGY
from search.shape import ModelShape
from search.space import SearchSpace
from service.jobs.job_spec import JobSpec, SpaceSpec, TargetSpec
from service.jobs.workloads import workload_for

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Profile:
    """A device, by the name that the job gives it, at a workload."""

    device: str
    workload: Workload


@dataclass(frozen=True, slots=True)
class Profiles:
    """All of a job, each once, and for every target the places of those that it may run in.

    A target whose runtime is `auto` has one for each runtime of its device.
    """

    all: tuple[Profile, ...]
    of_target: tuple[tuple[int, ...], ...]

    @property
    def precisions(self) -> tuple[str, ...]:
        """That any of the profiles builds networks in, in a fixed order."""
        known = (precision for profile in self.all for precision in profile.workload.precisions)
        return tuple(dict.fromkeys(known))


def profiles_of(
    spec: JobSpec, shape: ModelShape, identity_of: Callable[[str], Device]
) -> Profiles:
    """Raises: InvalidInput naming the target whose workload its model or device cannot do, or the
    objective that the first one's device cannot measure."""
    found: dict[Profile, int] = {}
    of_target = []
    for index, target in enumerate(spec.targets):
        try:
            workloads = _workloads(target, shape, identity_of(target.device))
        except InvalidInput as error:
            raise InvalidInput(f"targets[{index}].{error.field}", error.reason) from None
        places = [
            found.setdefault(Profile(target.device, workload), len(found))
            for workload in workloads
        ]
        of_target.append(tuple(places))
    if ENERGY.name in spec.search.objectives:
        _check_energy(spec.targets[0], identity_of)
    return Profiles(tuple(found), tuple(of_target))


def space_of(spec: SpaceSpec, shape: ModelShape, precisions: Sequence[str]) -> SearchSpace:
    """The job's space; where it does not choose precisions, all that its runtimes build."""
    choices = {"precision": list(precisions), **spec.choices}
    space = SearchSpace.for_shape(shape, spec.preset).with_choices(choices)
    if len(space.precision) == 1:
        return space.with_choices({"precision_groups": 1})
    return space


def _check_energy(target: TargetSpec, identity_of: Callable[[str], Device]) -> None:
    """Raises: InvalidInput where the energy of this target's inferences cannot be measured."""
    wants = f"{ENERGY.name} is measured on the device of the first target, {target.device!r}, "
    if identity_of(target.device).energy_source is None:
        raise InvalidInput(
            "search.objectives",
            f"{wants}whose agent can read no energy counters; let it read energy_uj of every "
            "package in /sys/class/powercap, choose a device that has them, or leave it out",
        )
    if target.workload.provider != "cpu":
        raise InvalidInput(
            "search.objectives",
            f"{wants}whose counters tell nothing of {target.workload.provider!r}; choose the "
            "provider 'cpu', or leave it out",
        )


def _workloads(target: TargetSpec, shape: ModelShape, device: Device) -> list[Workload]:
    asked = target.workload
    if asked.runtime != AUTO:
        if asked.runtime == "torch":
            raise InvalidInput(
                "workload.runtime",
                "the files of a search are ONNX, which torch does not run; choose onnxruntime or "
                "openvino (in torch a device can be onboarded)",
            )
        workload = workload_for(asked, shape)
        device.require(workload)
        return [workload]
    workloads = [
        workload_for(asked, shape, runtime=runtime)
        for runtime, info in device.runtimes.items()
        if runtime != "torch" and asked.provider in info.providers
    ]
    if not workloads:
        raise InvalidInput(
            "workload.runtime",
            f"no runtime of the device executes on {asked.provider!r}: "
            f"{', '.join(device.runtimes) or 'it has none'}",
        )
    return workloads
