"""First step: read model and data, fix the splits, and have the device learnt.

Latencies depend on shapes alone, so the device is learnt before anything is trained: a budget
that no network can keep fails the job within a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictors.device import Device
from search.data.dataset import Dataset, read_dataset
from search.export.quantize import needs_reduced_range
from search.model.checkpoint import (
    PREPROCESSOR_FILE,
    TOKENIZER_FILE,
    check_model_folder,
)
from search.model.fakequant import REDUCED_WEIGHT_BITS, WEIGHT_BITS
from search.robustness.sample import Sample
from search.shape import ModelShape
from search.training.distributed import training_device
from search.training.encoding import encode_splits
from search.training.image_rows import ImageRows
from search.training.precision import choose_precision
from search.training.tasks import task_of
from service.devices.devices import DeviceInfo
from service.devices.profiles import profiles_of, space_of
from service.steps.step_types import StepResult
from workers.context import JobContext
from workers.steps import onboard
from workers.steps.sources import with_sources
from workers.steps.state import Blobs, ProfileState, State
from workers.steps.uploads import data_sha256, link_table, link_upload, weights_sha256


def run(ctx: JobContext) -> StepResult:
    ctx.stage("prepare")
    state = _read_files(ctx) if ctx.spec.supernet_of is None else _trained(ctx)
    state = with_sources(ctx, state)
    return StepResult(next=onboard.begin(ctx, state))


def _trained(ctx: JobContext) -> State:
    """Data and supernet of an earlier job; devices, budgets and space are this one's."""
    assert ctx.spec.supernet_of is not None
    known = State.parse(ctx.trained_state(ctx.spec.supernet_of))
    places = _places(ctx, known.model_shape)
    space = space_of(ctx.spec.space, known.model_shape, places.precisions)
    ctx.event(
        "prepared",
        f"the supernet of {ctx.spec.supernet_of} is searched: {space.num_networks:,} networks",
        {"supernet_of": ctx.spec.supernet_of, "networks": space.num_networks}
        | _described(known.model_shape),
    )
    return State(
        shape=known.shape,
        label_names=known.label_names,
        data_sha256=known.data_sha256,
        model_sha256=known.model_sha256,
        profiles=places.states,
        profiles_of_target=places.of_target,
        training_precision=known.training_precision,
        weight_bits=places.weight_bits,
        space=space.with_layer_order(known.search_space.layer_order).to_dict(),
        blobs=known.blobs.updated(unlabelled=None),
        teacher_quality=known.teacher_quality,
        convergence=known.convergence,
    )


def _read_files(ctx: JobContext) -> State:
    spec = ctx.spec
    table = link_table(ctx, spec.data.upload)
    dataset = read_dataset(table, task=spec.task, columns=spec.data.columns)
    folder = link_upload(ctx, spec.model.upload)
    num_labels = len(dataset.label_names)
    shape = check_model_folder(folder, num_labels=num_labels, task=spec.task).shape
    places = _places(ctx, shape)
    space = space_of(spec.space, shape, places.precisions)
    state = State(
        shape=shape.to_dict(),
        label_names=dataset.label_names,
        data_sha256=data_sha256(ctx.upload_files(spec.data.upload)),
        model_sha256=weights_sha256(ctx.upload_files(spec.model.upload)),
        profiles=places.states,
        profiles_of_target=places.of_target,
        training_precision=choose_precision(spec.training.precision, shape, training_device()),
        weight_bits=places.weight_bits,
        space=space.to_dict(),
        blobs=_store_rows(ctx, dataset, folder, shape),
    )
    ctx.event(
        "prepared",
        f"{len(dataset)} rows, {space.num_networks:,} networks in the space",
        {
            "rows": len(dataset),
            "labels": list(dataset.label_names),
            "networks": space.num_networks,
            **_described(shape),
        },
    )
    return state


def _described(shape: ModelShape) -> dict[str, Any]:
    """What a picture of networks and qualities needs to know of the model."""
    task = task_of(shape)
    return {
        "shape": shape.to_dict(),
        "metric": task.metric,
        "quality_range": [task.chance(shape), task.best],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Places:
    """Where the targets of a job run, before anything is known of how fast."""

    states: tuple[ProfileState, ...]
    of_target: tuple[tuple[int, ...], ...]
    precisions: tuple[str, ...]
    weight_bits: int


def _places(ctx: JobContext, shape: ModelShape) -> _Places:
    devices = {target.device: ctx.device(target.device) for target in ctx.spec.targets}
    profiles = profiles_of(ctx.spec, shape, lambda name: Device.from_dict(devices[name].identity))
    return _Places(
        states=tuple(
            ProfileState(device_id=devices[p.device].id, workload=p.workload.to_dict())
            for p in profiles.all
        ),
        of_target=profiles.of_target,
        precisions=profiles.precisions,
        weight_bits=_weight_bits(devices.values()),
    )


def _weight_bits(devices: Iterable[DeviceInfo]) -> int:
    """Of int8 weights: as many as every device multiplies without saturating."""
    reduced = any(
        needs_reduced_range(
            frozenset(device.identity.get("isa", ())), device.identity.get("machine", "")
        )
        for device in devices
    )
    return REDUCED_WEIGHT_BITS if reduced else WEIGHT_BITS


def _store_rows(ctx: JobContext, dataset: Dataset, folder: Path, shape: ModelShape) -> Blobs:
    """Each split's rows, the file that says how others are made alike, and texts to change."""
    blobs = {}
    reader = folder / TOKENIZER_FILE
    max_seq_len, splits = ctx.spec.training.max_seq_len, dataset.split(ctx.seed)
    sample = Sample.of(dataset, splits, max_seq_len)
    if sample is not None:
        sample.save(ctx.scratch / "sample.json")
        blobs["sample"] = ctx.put_blob(ctx.scratch / "sample.json")
    for name, rows in encode_splits(dataset, splits, folder, shape, max_seq_len=max_seq_len):
        path = ctx.scratch / f"{name}.safetensors"
        rows.save(path)
        blobs[name] = ctx.put_blob(path)
        if isinstance(rows, ImageRows):
            reader = ctx.scratch / PREPROCESSOR_FILE
            reader.write_text(json.dumps(rows.preprocessor_config(), indent=1))
    return Blobs(reader=ctx.put_blob(reader), **blobs)
