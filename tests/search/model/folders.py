"""Tiny folders, written byte by byte: whole ones, and ones with a single thing wrong."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from search.families.config import Config
from search.families.vit import VIT

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 16,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 12,
}
TOKENIZER = {
    "model": {"type": "WordPiece", "vocab": {f"t{i}": i for i in range(12)}},
    "added_tokens": [{"id": 0, "content": "t0"}],
}

Shapes = dict[str, list[int]]


def tensor_shapes(prefix: str = "") -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": [12, 8],
        "embeddings.position_embeddings.weight": [32, 8],
        "embeddings.token_type_embeddings.weight": [2, 8],
        "embeddings.LayerNorm.weight": [8],
        "embeddings.LayerNorm.bias": [8],
    }
    layer_shapes = {
        "attention.self.query": [8, 8],
        "attention.self.key": [8, 8],
        "attention.self.value": [8, 8],
        "attention.output.dense": [8, 8],
        "attention.output.LayerNorm": [8],
        "intermediate.dense": [16, 8],
        "output.dense": [8, 16],
        "output.LayerNorm": [8],
    }
    for layer in range(2):
        for name, shape in layer_shapes.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return {prefix + name: shape for name, shape in shapes.items()}


def header_of(shapes: Shapes) -> dict[str, Any]:
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    return header


def write_tensors(
    path: Path, header: dict[str, Any] | bytes, num_bytes: int | None = None
) -> Path:
    """A safetensors file with this header and zeros, as many as the header asks for by default."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    if num_bytes is None:
        assert isinstance(header, dict)
        entries = [v for k, v in header.items() if k != "__metadata__"]
        num_bytes = max(entry["data_offsets"][1] for entry in entries)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(num_bytes))
    return path


def write_model(folder: Path, *, prefix: str = "", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    write_tensors(folder / "model.safetensors", header_of(tensor_shapes(prefix)))
    return folder


def write_vision_model(folder: Path) -> Path:
    """A ViT of 8 x 8 images, with a preprocessor and no tokenizer."""
    config = {
        "model_type": "vit",
        "hidden_size": 8,
        "image_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_channels": 1,
        "num_hidden_layers": 1,
        "patch_size": 4,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True}))
    shape = VIT.read_shape(Config(config), "image-classification")
    shapes = {tensor.name: list(tensor.size) for tensor in VIT.body(shape)}
    write_tensors(folder / "model.safetensors", header_of(shapes))
    return folder
