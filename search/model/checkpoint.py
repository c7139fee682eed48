"""Is a folder a model that can be searched? Answered without torch, and nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE, Config
from search.families.family import Family, StoredTensor
from search.families.registry import family_of_config
from search.model.tensorfile import TensorInfo, have_equal_bytes, read_header, unique_keys
from search.shape import ModelShape

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
# Loading one of these can run any code that its author put in.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

MAX_CONFIG_BYTES = 1024**2
MAX_INDEX_BYTES = 16 * 1024**2
MAX_TOKENIZER_BYTES = 128 * 1024**2
FLOAT_DTYPES = ("F32", "F16", "BF16")
# How transformers names the classes whose `classifier` answers as our head does.
CLASSIFIERS = {
    "token-classification": "ForTokenClassification",
    "image-classification": "ForImageClassification",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedModel:
    """What a model folder holds.

    Attributes:
        tensors: the file's name of every tensor that is read, and which file has it.
        has_head: whether the head is among them; if not, it is made afresh.
    """

    family: Family
    shape: ModelShape
    prefix: str
    tensors: Mapping[str, str]
    has_head: bool


def is_pickle(name: str) -> bool:
    """Whether a file of this name is (or may hold) a Python pickle."""
    return PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES


def check_file_names(names: list[str]) -> None:
    """Refuse a folder by its file names alone, before a byte of it is read or sent.

    Whether a tokenizer is needed, config.json says.

    Raises:
        InvalidInput: a needed file is missing.
    """
    if CONFIG_FILE not in names:
        raise InvalidInput(CONFIG_FILE, f"is missing; a model folder has {_needed_files()}")
    if WEIGHTS_FILE in names or INDEX_FILE in names:
        return
    pickles = sorted(name for name in names if is_pickle(name))
    if pickles:
        raise InvalidInput(
            pickles[0],
            "is a Python pickle, which can run code when it is read, so it is never opened; "
            f"save the weights as {WEIGHTS_FILE} instead",
        )
    raise InvalidInput(WEIGHTS_FILE, f"is missing; a model folder has {_needed_files()}")


def check_model_folder(folder: Path, num_labels: int = 2, task: str | None = None) -> CheckedModel:
    """Check config, tokenizer and weights of `folder` against each other.

    Args:
        num_labels: number of classes of the data; the folder itself does not know it.
        task: one of `search.shape.TASKS`; None is the family's first.

    Raises:
        InvalidInput: with the file's name as the field, or `task`.
    """
    check_file_names([path.name for path in folder.iterdir()])
    config = Config(read_json(folder / CONFIG_FILE))
    family = family_of_config(config.model_type)
    if config.has_own_layers:
        raise InvalidInput(
            CONFIG_FILE,
            "per_layer_config: a search starts from a model whose layers are alike; "
            "search.export.load_subnet reads this one",
        )
    shape = family.read_shape(config, _task(family, task))
    if shape.task not in ("language-modelling", "sentence-embedding"):
        shape = replace(shape, num_labels=num_labels)
    check_reader(folder, shape)
    stored = stored_tensors(folder)
    prefix = _prefix(family, shape, stored)
    body = [replace(t, name=prefix + t.name) for t in family.body(shape)]
    for tensor in body:
        check_tensor(tensor, stored)
    _check_depth(family, shape, prefix, stored)
    shape = _with_own_head(folder, family, shape, prefix, stored)
    head = list(family.head(shape))
    has_head = bool(head) and _is_for(shape.task, config)
    if shape.task != "language-modelling":
        has_head = has_head and all(_is_stored(t, stored) for t in head)
    wanted = body + (head if has_head else [])
    for tensor in wanted[len(body) :]:
        check_tensor(tensor, stored)
    files = {t.name: stored[t.name].file for t in wanted}
    return CheckedModel(
        family=family, shape=shape, prefix=prefix, tensors=files, has_head=has_head
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor and the file that holds it."""

    file: str
    info: TensorInfo


def _needed_files() -> str:
    return f"{CONFIG_FILE}, {WEIGHTS_FILE} (or its shards) and, for texts, {TOKENIZER_FILE}"


def _task(family: Family, task: str | None) -> str:
    if task is None:
        return family.tasks[0]
    if task not in family.tasks:
        known = ", ".join(family.tasks)
        raise InvalidInput("task", f"a {family.name} model does {known}, not {task!r}")
    return task


def check_reader(folder: Path, shape: ModelShape) -> None:
    """What turns a user's data into a model's inputs: needed for texts, optional for images.

    Raises:
        InvalidInput: it is missing, or does not fit the model.
    """
    if shape.reads_images:
        if (folder / PREPROCESSOR_FILE).exists():
            read_json(folder / PREPROCESSOR_FILE)
        return
    if not (folder / TOKENIZER_FILE).exists():
        raise InvalidInput(TOKENIZER_FILE, f"is missing; a model folder has {_needed_files()}")
    tokenizer = read_json(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    _check_tokenizer(tokenizer, shape.vocab_size)


def read_json(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Raises: InvalidInput when it is too large, or no JSON object."""
    if path.stat().st_size > max_bytes:
        raise InvalidInput(path.name, f"has more than {max_bytes} bytes")
    try:
        data = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(path.name, f"is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(path.name, "must hold a JSON object")
    return data


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's one file, or of all shards that its index names."""
    if (folder / WEIGHTS_FILE).exists():
        header = read_header(folder / WEIGHTS_FILE)
        return {name: Stored(WEIGHTS_FILE, info) for name, info in header.items()}
    index = read_json(folder / INDEX_FILE, MAX_INDEX_BYTES)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InvalidInput(INDEX_FILE, "has no weight_map of tensors to files")
    stored: dict[str, Stored] = {}
    for file in dict.fromkeys(places.values()):
        if not _is_shard(file):
            raise InvalidInput(INDEX_FILE, f"names a shard {file!r:.80}; it must be a file here")
        if not (folder / file).exists():
            raise InvalidInput(file, f"is missing, but {INDEX_FILE} names it")
        header = read_header(folder / file)
        stored |= {n: Stored(file, i) for n, i in header.items() if places.get(n) == file}
    missing = sorted(set(places) - set(stored))
    if missing:
        raise InvalidInput(INDEX_FILE, f"says that {missing[0]} is in {places[missing[0]]}")
    return stored


def _weights_field(stored: Mapping[str, Stored]) -> str:
    """The file to blame for what no file holds."""
    return WEIGHTS_FILE if {s.file for s in stored.values()} <= {WEIGHTS_FILE} else INDEX_FILE


def _is_shard(file: object) -> bool:
    """A plain name in the folder: never a path."""
    return isinstance(file, str) and file.endswith(".safetensors") and Path(file).name == file


def _prefix(family: Family, shape: ModelShape, stored: Mapping[str, Stored]) -> str:
    first = next(iter(family.body(shape)))
    for prefix in family.prefixes:
        if prefix + first.name in stored:
            return prefix
    raise InvalidInput(_weights_field(stored), f"tensor {first.name} is missing")


def _check_depth(
    family: Family, shape: ModelShape, prefix: str, stored: Mapping[str, Stored]
) -> None:
    """Refuse a file of more layers than its config names: half a model would be imported."""
    known = {t.name for t in family.body(shape)}
    for tensor in family.body(replace(shape, num_layers=shape.num_layers + 1)):
        found = stored.get(prefix + tensor.name)
        if tensor.name not in known and found is not None:
            raise InvalidInput(
                found.file,
                f"has the tensor {found.info.name}, but {CONFIG_FILE} says that there are "
                f"{shape.num_layers} layers",
            )


def _with_own_head(
    folder: Path, family: Family, shape: ModelShape, prefix: str, stored: Mapping[str, Stored]
) -> ModelShape:
    """The shape, untied where the file holds a head that is not the word table.

    A config may claim a tie that its file does not keep; transformers then goes by the file.
    """
    if not shape.has_tied_head:
        return shape
    untied = replace(shape, has_tied_head=False)
    (head,) = family.head(untied)
    found, table = stored.get(head.name), stored[prefix + _word_table(family, shape)]
    if found is None:
        return shape
    check_tensor(head, stored)
    is_tied = have_equal_bytes(folder / found.file, found.info, folder / table.file, table.info)
    return shape if is_tied else untied


def _word_table(family: Family, shape: ModelShape) -> str:
    return next(
        tensor.name
        for tensor in family.body(shape)
        if any(part.name == "embeddings.word.weight" for part in tensor.parts)
    )


def _is_for(task: str, config: Config) -> bool:
    """Whether the folder's head is one for this task: a `classifier` may be of whole texts."""
    return task not in CLASSIFIERS or config.is_saved_as(CLASSIFIERS[task])


def _is_stored(tensor: StoredTensor, stored: Mapping[str, Stored]) -> bool:
    found = stored.get(tensor.name)
    return found is not None and found.info.shape == tensor.size


def check_tensor(tensor: StoredTensor, stored: Mapping[str, Stored]) -> None:
    """Raises: InvalidInput when it is missing, or of another size or type."""
    found = stored.get(tensor.name)
    if found is None:
        raise InvalidInput(_weights_field(stored), f"tensor {tensor.name} is missing")
    if found.info.shape != tensor.size:
        raise InvalidInput(
            found.file,
            f"tensor {tensor.name} has shape {list(found.info.shape)}, "
            f"{CONFIG_FILE} asks for {list(tensor.size)}",
        )
    if found.info.dtype not in FLOAT_DTYPES:
        raise InvalidInput(
            found.file,
            f"tensor {tensor.name} has dtype {found.info.dtype}, "
            f"weights must be one of {', '.join(FLOAT_DTYPES)}",
        )


def _check_tokenizer(tokenizer: Mapping[str, Any], vocab_size: int) -> None:
    ids = list(_token_ids(tokenizer))
    if max(ids) >= vocab_size:
        raise InvalidInput(
            TOKENIZER_FILE,
            f"has the token id {max(ids)}, but vocab_size in {CONFIG_FILE} is {vocab_size}",
        )


def _token_ids(tokenizer: Mapping[str, Any]) -> Iterator[int]:
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
    yield from ids
