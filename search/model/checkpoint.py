"""Is a folder a model that can be searched? Answered without torch, and nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from search.errors import InvalidInput
from search.model.tensorfile import TensorInfo, read_header, unique_keys
from search.shape import ModelShape

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
SUPPORTED_FAMILIES = ("bert",)
# Loading one of these can run any code that its author put in.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

MAX_CONFIG_BYTES = 1024**2
MAX_TOKENIZER_BYTES = 128 * 1024**2
MAX_SIZE = 2**24
FLOAT_DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedModel:
    """What a model folder holds: `tensors` are the names of the encoder's weights in the file."""

    shape: ModelShape
    tensors: tuple[str, ...]


def is_pickle(name: str) -> bool:
    """Whether a file of this name is (or may hold) a Python pickle."""
    return PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES


def check_file_names(names: list[str]) -> None:
    """Refuse a folder by its file names alone, before a byte of it is read or sent.

    Raises:
        InvalidInput: a needed file is missing.
    """
    for required in REQUIRED_FILES:
        if required in names:
            continue
        pickles = sorted(name for name in names if is_pickle(name))
        if required == WEIGHTS_FILE and pickles:
            raise InvalidInput(
                pickles[0],
                "is a Python pickle, which can run code when it is read, so it is never opened; "
                f"save the weights as {WEIGHTS_FILE} instead",
            )
        raise InvalidInput(required, f"is missing; a model folder has {', '.join(REQUIRED_FILES)}")


def check_model_folder(folder: Path, num_labels: int = 2) -> CheckedModel:
    """Check config, tokenizer and weights of `folder` against each other.

    Args:
        num_labels: number of classes of the data; the folder itself does not know it.

    Raises:
        InvalidInput: with the file's name as the field.
    """
    check_file_names([path.name for path in folder.iterdir()])
    config = _read_json(folder / CONFIG_FILE, MAX_CONFIG_BYTES)
    shape = _bert_shape(config, num_labels)
    _check_tokenizer(_read_json(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES), shape.vocab_size)
    stored = read_header(folder / WEIGHTS_FILE)
    return CheckedModel(shape=shape, tensors=tuple(_check_tensors(stored, shape)))


def _read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    if path.stat().st_size > max_bytes:
        raise InvalidInput(path.name, f"has more than {max_bytes} bytes")
    try:
        data = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(path.name, f"is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(path.name, "must hold a JSON object")
    return data


def _bert_shape(config: Mapping[str, Any], num_labels: int) -> ModelShape:
    family = config.get("model_type")
    if family not in SUPPORTED_FAMILIES:
        raise InvalidInput(
            CONFIG_FILE,
            f"model_type {family!r} is unsupported; supported: {', '.join(SUPPORTED_FAMILIES)}",
        )
    _check_variant(config)
    embed_dim = _size(config, "hidden_size")
    num_heads = _size(config, "num_attention_heads")
    if embed_dim % num_heads:
        raise InvalidInput(
            CONFIG_FILE,
            f"hidden_size {embed_dim} must be a multiple of num_attention_heads {num_heads}",
        )
    return ModelShape(
        family=family,
        num_layers=_size(config, "num_hidden_layers", largest=1000),
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=embed_dim // num_heads,
        ffn_dim=_size(config, "intermediate_size"),
        vocab_size=_size(config, "vocab_size"),
        max_seq_len=_size(config, "max_position_embeddings"),
        num_token_types=_size(config, "type_vocab_size", default=2),
        num_labels=num_labels,
        norm_eps=_epsilon(config),
    )


def _check_variant(config: Mapping[str, Any]) -> None:
    """Refuse what would import without an error but compute something else."""
    expected: dict[str, tuple[Any, ...]] = {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    }
    for key, allowed in expected.items():
        if key in config and config[key] not in allowed:
            raise InvalidInput(
                CONFIG_FILE, f"{key} {config[key]!r} is unsupported; supported: {allowed[0]!r}"
            )


def _size(
    config: Mapping[str, Any], key: str, *, default: int | None = None, largest: int = MAX_SIZE
) -> int:
    value = config.get(key, default)
    if type(value) is not int or not 1 <= value <= largest:
        raise InvalidInput(
            CONFIG_FILE, f"{key} must be a whole number from 1 to {largest}, got {value!r}"
        )
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise InvalidInput(CONFIG_FILE, f"layer_norm_eps must lie in (0, 1), got {value!r}")
    return float(value)


def _check_tokenizer(tokenizer: Mapping[str, Any], vocab_size: int) -> None:
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict | list) or not vocab:
        raise InvalidInput(TOKENIZER_FILE, "has no vocabulary at model.vocab")
    ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
    added = tokenizer.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise InvalidInput(TOKENIZER_FILE, "added_tokens must be a list of objects")
    ids += [token.get("id") for token in added]
    if any(type(token_id) is not int or token_id < 0 for token_id in ids):
        raise InvalidInput(TOKENIZER_FILE, "has a token whose id is no whole number from 0")
    if max(ids) >= vocab_size:
        raise InvalidInput(
            TOKENIZER_FILE,
            f"has the token id {max(ids)}, but vocab_size in {CONFIG_FILE} is {vocab_size}",
        )


def _check_tensors(stored: Mapping[str, TensorInfo], shape: ModelShape) -> Iterator[str]:
    first = "embeddings.word_embeddings.weight"
    prefix = "bert." if f"bert.{first}" in stored else ""
    for name, expected in _encoder_tensors(shape):
        tensor = stored.get(prefix + name)
        if tensor is None:
            raise InvalidInput(WEIGHTS_FILE, f"tensor {prefix + name} is missing")
        if tensor.shape != expected:
            raise InvalidInput(
                WEIGHTS_FILE,
                f"tensor {tensor.name} has shape {list(tensor.shape)}, "
                f"{CONFIG_FILE} asks for {list(expected)}",
            )
        if tensor.dtype not in FLOAT_DTYPES:
            raise InvalidInput(
                WEIGHTS_FILE,
                f"tensor {tensor.name} has dtype {tensor.dtype}, "
                f"weights must be one of {', '.join(FLOAT_DTYPES)}",
            )
        yield tensor.name


def _encoder_tensors(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    dim, ffn = shape.embed_dim, shape.ffn_dim
    yield "embeddings.word_embeddings.weight", (shape.vocab_size, dim)
    yield "embeddings.position_embeddings.weight", (shape.max_seq_len, dim)
    yield "embeddings.token_type_embeddings.weight", (shape.num_token_types, dim)
    yield from _pair("embeddings.LayerNorm", (dim,))
    for layer in range(shape.num_layers):
        start = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            yield from _pair(f"{start}.attention.self.{part}", (dim, dim))
        yield from _pair(f"{start}.attention.output.dense", (dim, dim))
        yield from _pair(f"{start}.attention.output.LayerNorm", (dim,))
        yield from _pair(f"{start}.intermediate.dense", (ffn, dim))
        yield from _pair(f"{start}.output.dense", (dim, ffn))
        yield from _pair(f"{start}.output.LayerNorm", (dim,))


def _pair(name: str, weight: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]
