"""Export every network that is ready, check each file, and have the device measure them all."""

from __future__ import annotations

from pathlib import Path

from predictors.spec import REFERENCE_KEY, MeasuringSpec, NetworkSpec
from search.compress.files import stored_precision, write_file
from search.compress.network import Compressed
from search.export.external import external_file
from search.export.package import export_onnx
from search.export.parity import Parity, check_parity
from search.space import SubnetConfig
from search.training.evaluate import few, predict
from service.steps.step_types import NewMeasurement, NewStep, StepFailed, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, set_threads
from workers.steps.export import PARITY_ROWS, next_step
from workers.steps.network import is_as_predicted, network_of, rows_for, with_vocabulary_of
from workers.steps.state import StageRecord, State, Target
from workers.steps.training import without_checkpoint

QUANTIZED_KEY = "quantized"


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    set_threads(ctx)
    state = without_checkpoint(ctx, State.parse(ctx.input))
    if state.baseline_onnx is None:
        state = _export_unsearched(ctx, state)
    for index, target in enumerate(state.targets):
        if target.subnet is not None and target.onnx is None:
            ctx.check_abort()
            state = _export_target(ctx, state, target, index)
    if not any(target.needs_measuring for target in state.targets):
        return StepResult(next=next_step(ctx, state))
    return StepResult(next=measure_next(ctx, state.updated(current_profile=-1)))


def measure_next(ctx: JobContext, state: State) -> NewMeasurement | None:
    """The next profile in which a target's file is to be measured; None after the last one."""
    for place in range(state.current_profile + 1, len(state.profiles)):
        if any(t.needs_measuring and t.profile == place for t in state.targets):
            return measure_files(ctx, state.updated(current_profile=place))
    return None


def measure_files(ctx: JobContext, state: State) -> NewMeasurement:
    """All files of the current profile in one session, to be compared under equal conditions."""
    profile = state.profile
    workload = profile.target_workload
    networks = [
        NetworkSpec(
            key=f"t{index}",
            subnet=target.config,
            blob=target.onnx,
            vocab_size=_vocab_size(state, target),
        )
        for index, target in enumerate(state.targets)
        if target.needs_measuring and target.profile == state.current_profile
    ]
    full = SubnetConfig.full(state.model_shape)
    if "int8" in workload.precisions:
        quantized = full.with_precision("int8")
        networks.append(
            NetworkSpec(key=QUANTIZED_KEY, subnet=quantized, blob=state.quantized_onnx)
        )
    spec = MeasuringSpec(
        workload=workload,
        shape=state.model_shape,
        reference=NetworkSpec(key=REFERENCE_KEY, subnet=full, blob=state.baseline_onnx),
        networks=tuple(networks),
        rounds=2 * ctx.spec.measuring.rounds,
        repeats=2 * ctx.spec.measuring.repeats,
        seed=ctx.seed + 1000 + profile.measuring_tries,
    )
    then = NewStep(kind="verify", input=state.dump())
    own_kinds = {f"t{index}" for index, t in enumerate(state.targets) if t.is_of_own_kind}
    return NewMeasurement(
        device_id=profile.device_id,
        spec=spec.to_dict(),
        then=then,
        # The latency of a network that is none of the search's would mislead its predictor.
        purposes={n.key: "recipe" if n.key in own_kinds else "finish" for n in spec.networks},
    )


def _vocab_size(state: State, target: Target) -> int | None:
    assert target.onnx is not None
    vocabulary = state.vocabularies.get(target.onnx)
    return None if vocabulary is None else vocabulary.size


def _export_unsearched(ctx: JobContext, state: State) -> State:
    """The fine-tuned model as it is, and the same merely quantized: what a search must beat."""
    model = load_network(ctx, state, state.blobs.teacher)
    paths = {}
    for precision in ("fp32", "int8"):
        subnet = model.sizes.with_precision(precision)
        paths[precision] = export_onnx(model, subnet, ctx.scratch / f"full-{precision}.onnx")
        refuse_two_files(paths[precision])
    check_file(ctx, state, Compressed.whole(model), paths["fp32"])
    return state.updated(
        baseline_onnx=ctx.put_blob(paths["fp32"]), quantized_onnx=ctx.put_blob(paths["int8"])
    )


def _export_target(ctx: JobContext, state: State, target: Target, index: int) -> State:
    network = network_of(ctx, state, target)
    precision = stored_precision(network)
    path = write_file(network, ctx.scratch / f"{target.config.fingerprint}.onnx")
    refuse_two_files(path)
    parity = check_file(ctx, state, network, path)
    size_bytes = path.stat().st_size
    record = StageRecord(
        stage="export" if precision == "fp32" else "quantize",
        quality=target.quality,
        latency_ms=target.predicted_ms,
        size_bytes=size_bytes,
        note=f"ONNX in {precision}; {parity}",
    )
    onnx = ctx.put_blob(path)
    state = with_vocabulary_of(ctx, state, network, onnx)
    changed = target.with_stage(
        record,
        onnx=onnx,
        size_bytes=size_bytes,
        is_of_own_kind=network.format is not None
        or not is_as_predicted(state.model_shape, network),
    )
    return state.with_target(changed, index)


def refuse_two_files(path: Path) -> None:
    """What a device measures is one file.

    Raises: StepFailed when the weights are too many for one.
    """
    if external_file(path).exists():
        raise StepFailed("too_large", "ONNX files of more than 2 GB cannot be measured yet", {})


def check_file(ctx: JobContext, state: State, network: Compressed, path: Path) -> Parity:
    """Raises: ParityError when the file answers otherwise than the network."""
    shape = network.model.shape
    rows = few(rows_for(ctx, state, network, state.blobs.validation), shape, PARITY_ROWS)
    expected = predict(network.model, rows, network.subnet.renumbered())
    return check_parity(path, rows, expected, shape, precision=stored_precision(network))
