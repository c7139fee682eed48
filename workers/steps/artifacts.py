"""The files of one winner: a folder as the tools of the field expect it, and its ONNX."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from search.compress.files import stored_precision
from search.compress.network import Compressed
from search.errors import InvalidInput
from search.export.folder import MODEL_FILE, write_model
from search.families.config import CONFIG_FILE
from search.model.checkpoint import PREPROCESSOR_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from service.artifacts.verifying import MANIFEST_FILE, SIGNATURE_FILE
from workers.context import JobContext
from workers.steps.card import Card
from workers.steps.network import network_of, renumbered
from workers.steps.origin import Origin, origin_of
from workers.steps.state import State, Target

ONNX_NAMES = {
    "fp32": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int4": "onnx/model_q4.onnx",
}
METRICS_FILE, CARD_FILE = "metrics.json", "README.md"
# The promise, and how it was kept.
SIGNED_METRICS = ("is_met", "budget_ms", "p50_ms", "p95_ms", "quality", "size_bytes", "params")
# Of the uploaded model; what is beside a tokenizer tells transformers how to call it.
TOKENIZER_CONFIG = "tokenizer_config.json"
COPIED_FILES = (TOKENIZER_CONFIG, "special_tokens_map.json")
ASKED_FILES = (CONFIG_FILE, CARD_FILE, *COPIED_FILES)
PACKAGES = ("snugnet", "torch", "onnx", "onnxruntime", "optuna", "tokenizers")
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def target_files(
    ctx: JobContext,
    state: State,
    index: int,
    figures: dict[str, Any],
    report: dict[str, Any],
) -> dict[str, Path]:
    """Name and place of each file of a target: a folder that transformers and `load_subnet` read,
    ONNX, the further formats that were asked for, the lineage, a model card, and a signed manifest
    of all these."""
    target = state.targets[index]
    assert target.onnx is not None
    # Two targets may have come to the same network.
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    hashes = ctx.upload_files(ctx.spec.model.upload)
    uploaded = {name: ctx.blob(hashes[name]) for name in ASKED_FILES if name in hashes}
    network = network_of(ctx, state, target)
    vocabulary = state.vocabularies.get(target.onnx)
    reader = state.blobs.reader if vocabulary is None else vocabulary.reader
    written, missing = _write_network(ctx, state, network, folder)
    files = {
        **{name: ctx.blob(sha256) for e in target.exports for name, sha256 in e.files.items()},
        ONNX_NAMES[stored_precision(network)]: ctx.blob(target.onnx),
        reader_name(state): ctx.blob(reader),
        **written,
    }
    kept = network.kept_tokens
    if CONFIG_FILE in files and CONFIG_FILE in uploaded:
        _keep_special_tokens(files[CONFIG_FILE], uploaded[CONFIG_FILE], kept)
    if not state.model_shape.reads_images:
        files |= {name: uploaded[name] for name in COPIED_FILES if name in uploaded}
        if kept is not None and TOKENIZER_CONFIG in uploaded:
            described = json.loads(uploaded[TOKENIZER_CONFIG].read_bytes())
            files[TOKENIZER_CONFIG] = folder / TOKENIZER_CONFIG
            files[TOKENIZER_CONFIG].write_text(json.dumps(renumbered(described, kept), indent=1))
    metrics = lineage(ctx, state, target, figures, report)
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=1))
    card = _card(state, target, network, figures, report, files, origin_of(uploaded), missing)
    (folder / CARD_FILE).write_text(card.text())
    files |= {name: folder / name for name in (METRICS_FILE, CARD_FILE)}
    signed = {**identity(ctx, state, index, metrics), **manifest(files)}
    content = (json.dumps(signed, indent=1) + "\n").encode()
    (folder / MANIFEST_FILE).write_bytes(content)
    (folder / SIGNATURE_FILE).write_bytes(ctx.sign(content))
    return files | {name: folder / name for name in (MANIFEST_FILE, SIGNATURE_FILE)}


def reader_name(state: State) -> str:
    return PREPROCESSOR_FILE if state.model_shape.reads_images else TOKENIZER_FILE


def manifest(files: Mapping[str, Path]) -> dict[str, Any]:
    """Size and SHA-256 of every file by name."""
    found = {}
    for name in sorted(files):
        with files[name].open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = {"size_bytes": files[name].stat().st_size, "sha256": sha256}
    return {"files": found}


def identity(
    ctx: JobContext, state: State, index: int, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """What the files are of, as far as a signature should vouch for it by itself."""
    return {
        "version": 1,
        "job": {"id": ctx.job_id, "seed": ctx.seed},
        "target": index,
        "subnet": state.targets[index].config.fingerprint,
        "metrics": {name: metrics[name] for name in SIGNED_METRICS if name in metrics},
        "provenance": {
            "data_sha256": state.data_sha256,
            "model_sha256": state.model_sha256,
            "measurement_job": metrics["measurement_job"],
            "versions": metrics["versions"],
        },
    }


def lineage(
    ctx: JobContext,
    state: State,
    target: Target,
    figures: dict[str, Any],
    report: dict[str, Any],
) -> dict[str, Any]:
    """Everything that made the network what it is, and what each stage changed."""
    assert target.profile is not None
    profile = report["profiles"][target.profile]
    return {
        **figures,
        "job": {"id": ctx.job_id, "spec": ctx.spec_json, "seed": ctx.seed},
        "data": report["data"],
        "baseline": report["baseline"],
        "device": profile["device"],
        "workload": profile["workload"],
        "measurement_job": profile["measurement_job"],
        "training_precision": state.training_precision,
        "int8_weight_bits": state.weight_bits,
        "versions": report["versions"] | _versions(target),
        "repeat": "snugnet submit job.yaml, with `job.spec` as job.yaml",
    }


def versions() -> dict[str, str]:
    """Of the packages that made the networks."""
    return {name: version(name) for name in PACKAGES}


def _versions(target: Target) -> dict[str, str]:
    """Of what wrote the further formats."""
    return {name: found for e in target.exports for name, found in e.versions.items()}


def _write_network(
    ctx: JobContext, state: State, network: Compressed, folder: Path
) -> tuple[dict[str, Path], str]:
    """Config, weights and, where it is needed, code; a family that has no writer has its ONNX,
    and the reason."""
    try:
        write_model(network.model, folder, state.label_names)
    except InvalidInput as error:
        ctx.event("folder", f"without config.json and weights: {error}", level="warning")
        return {}, error.reason
    names = (CONFIG_FILE, WEIGHTS_FILE, MODEL_FILE)
    return {name: folder / name for name in names if (folder / name).exists()}, ""


def _keep_special_tokens(config: Path, uploaded: Path, kept: Tensor | None) -> None:
    """What is generated ends with the token that the uploaded model ends with.

    Args:
        kept: ids that are left of a vocabulary that was trimmed.
    """
    written, given = (json.loads(path.read_bytes()) for path in (config, uploaded))
    old_ids = range(written.get("vocab_size", 0)) if kept is None else kept.tolist()
    new_ids = {old: new for new, old in enumerate(old_ids)}
    for key in SPECIAL_TOKENS:
        ids = given.get(key)
        listed = ids if isinstance(ids, list) else [ids]
        if key not in written and listed and all(type(i) is int and i in new_ids for i in listed):
            renamed = [new_ids[i] for i in listed]
            written[key] = renamed if isinstance(ids, list) else renamed[0]
    config.write_text(json.dumps(written, indent=1) + "\n")


def _card(
    state: State,
    target: Target,
    network: Compressed,
    figures: Mapping[str, Any],
    report: Mapping[str, Any],
    files: Mapping[str, Path],
    origin: Origin,
    missing: str,
) -> Card:
    assert target.profile is not None
    return Card(
        shape=network.model.shape,
        subnet=target.config,
        label_names=state.label_names,
        onnx=ONNX_NAMES[stored_precision(network)],
        config=json.loads(files[CONFIG_FILE].read_bytes()) if CONFIG_FILE in files else {},
        figures=figures,
        report=report,
        profile=report["profiles"][target.profile],
        origin=origin,
        missing=missing,
    )
