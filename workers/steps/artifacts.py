"""The files of one winner, named as the tools of the field expect them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from search.model.checkpoint import PREPROCESSOR_FILE, TOKENIZER_FILE
from search.space import SubnetConfig
from workers.context import JobContext
from workers.steps.data import load_network
from workers.steps.state import State, Target

ONNX_NAMES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


def target_files(
    ctx: JobContext, state: State, target: Target, figures: dict[str, Any], report: dict[str, Any]
) -> dict[str, Path]:
    """Name and place of each file: ONNX, weights, config, tokenizer, metrics and model card."""
    assert target.onnx is not None
    # Two targets may have come to the same network.
    folder = Path(tempfile.mkdtemp(dir=ctx.scratch))
    model = load_network(ctx, state, target.weights, target.config)
    save_file(
        {name: p.detach().contiguous() for name, p in model.named_parameters()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = network_config(state, target.config)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    metrics = lineage(ctx, state, target, figures, report)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (folder / "README.md").write_text(model_card(state, target, figures, report))
    names = ("model.safetensors", "config.json", "metrics.json", "README.md")
    return {
        ONNX_NAMES[target.config.precision]: ctx.blob(target.onnx),
        reader_name(state): ctx.blob(state.blobs.reader),
        **{name: folder / name for name in names},
    }


def reader_name(state: State) -> str:
    return PREPROCESSOR_FILE if state.model_shape.reads_images else TOKENIZER_FILE


def network_config(state: State, subnet: SubnetConfig) -> dict[str, Any]:
    """The network's sizes; per layer in the form that transformers calls `per_layer_config`."""
    shape = state.model_shape
    return {
        "model_type": f"snugnet-{shape.family}",
        "num_hidden_layers": subnet.num_layers,
        "hidden_size": shape.embed_dim,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_seq_len,
        "type_vocab_size": shape.num_token_types,
        "layer_norm_eps": shape.norm_eps,
        "hidden_act": "gelu",
        "pooling": "mean",
        "id2label": {str(i): name for i, name in enumerate(state.label_names)},
        "per_layer_config": {
            str(i): {"num_attention_heads": heads, "intermediate_size": ffn}
            for i, (heads, ffn) in enumerate(zip(subnet.num_heads, subnet.ffn_dim, strict=True))
        },
        "source_layers": list(subnet.layers),
        "precision": subnet.precision,
    }


def lineage(
    ctx: JobContext,
    state: State,
    target: Target,
    figures: dict[str, Any],
    report: dict[str, Any],
) -> dict[str, Any]:
    """Everything that made the network what it is, and what each stage changed."""
    packages = ("snugnet", "torch", "onnx", "onnxruntime", "optuna", "tokenizers")
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
        "versions": {name: version(name) for name in packages},
        "repeat": "snugnet submit job.yaml, with `job.spec` as job.yaml",
    }


def _shown(figures: Mapping[str, Any]) -> str:
    within = figures["quality_interval"]
    return f"{within['lower']:.4f} to {within['upper']:.4f}"


def model_card(
    state: State, target: Target, figures: dict[str, Any], report: dict[str, Any]
) -> str:
    assert target.profile is not None
    subnet, profile = target.config, report["profiles"][target.profile]
    workload = profile["workload"]
    layers = "\n".join(
        f"| {layer} | {heads} | {ffn} |"
        for layer, heads, ffn in zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True)
    )
    onnx, labels = ONNX_NAMES[subnet.precision], ", ".join(state.label_names)
    unsearched, metric = report["baseline"], report["metric"].replace("_", " ")
    return f"""---
library_name: onnxruntime
pipeline_tag: text-classification
tags: [snugnet, neural-architecture-search]
---
# A text classifier that fits {figures["budget_ms"]:.2f} ms

| | this network | unsearched model |
|---|---|---|
| {metric}, test split | {figures["quality"]:.4f} | {unsearched["quality"]:.4f} |
| within (95 %, all of them at once) | {_shown(figures)} | {_shown(unsearched)} |
| p50 latency, ms | {figures["p50_ms"]:.3f} | {profile["baseline"]["p50_ms"]:.3f} |
| p95 latency, ms | {figures["p95_ms"]:.3f} | {profile["baseline"]["p95_ms"]:.3f} |
| file, bytes | {figures["size_bytes"]} | {unsearched["size_bytes"]} |
| parameters | {figures["params"]} | {unsearched["params"]} |

Measured on {profile["device"]["cpu_model"]} in {workload["runtime"]}:
batch {workload["batch_size"]}, {workload["seq_len"]} tokens, {workload["threads"]} thread(s).
Labels: {labels}.

| layer of the original | heads | ffn_dim |
|---|---|---|
{layers}

Precision: {subnet.precision}. `metrics.json` has the lineage of every stage.

```python
import numpy as np, onnxruntime, tokenizers
text = tokenizers.Tokenizer.from_file("tokenizer.json").encode("a text")
feed = {{"input_ids": np.array([text.ids]), "attention_mask": np.array([text.attention_mask])}}
logits = onnxruntime.InferenceSession("{onnx}").run(["logits"], feed)[0]
```
"""
