"""Teachers that a user names: networks beside the original, and whether they can teach it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from search.compress.pieces import Spec
from search.errors import InvalidInput
from search.export.loading import read_subnet
from search.families.config import CONFIG_FILE, Config
from search.families.networks import MAX_LABELS, OWN_KEY
from search.model.checkpoint import (
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILE,
    check_model_folder,
    read_json,
)
from search.model.importing import import_model
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.training.rows import Rows

# What of a tokenizer.json decides which ids a text becomes; padding and truncation are a caller's.
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "added_tokens", "model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A network that others learn from, and what tells whether they can.

    Attributes:
        label_names: of its classes, in its order; empty where it has none, or nobody named them.
        tokenizer: what its tokenizer.json says; None: it reads images, or nobody knows.
        has_answers: whether its head was trained: a model as it was pretrained has none, and
            teaches by its states alone.
    """

    model: ElasticTransformer
    label_names: tuple[str, ...] = ()
    tokenizer: Spec | None = None
    has_answers: bool = True

    @property
    def width(self) -> int:
        return self.model.sizes.width_in(self.model.shape)

    def check(self, name: str, shape: ModelShape, rows: Rows, tokenizer: Spec | None) -> None:
        """Whether it reads `rows` as the network of `shape` does.

        Raises:
            InvalidInput: it does not, and what would be right.
        """
        field, mine = f"teachers.{name}", self.model.shape
        _check_same_input(field, mine, shape)
        if mine.reads_images:
            return
        _check_same_tokenizer(field, self.tokenizer, tokenizer)
        if tokenizer is None and mine.vocab_size != shape.vocab_size:
            raise InvalidInput(
                field,
                f"must have the network's {shape.vocab_size} words, got {mine.vocab_size}",
            )
        longest = int(rows.lengths.max())
        if longest > mine.max_seq_len:
            raise InvalidInput(
                field, f"must read texts of {longest} tokens, reads {mine.max_seq_len} at most"
            )

    def check_answers(self, name: str, shape: ModelShape, label_names: tuple[str, ...]) -> None:
        """Whether its answers mean what those of the network of `shape` do.

        Raises:
            InvalidInput: they do not, and what would be right.
        """
        field, mine = f"teachers.{name}", self.model.shape
        if not self.has_answers:
            raise InvalidInput(
                field, "has no head for this task: train one, or set soft to 0 to learn without"
            )
        if mine.task != shape.task:
            raise InvalidInput(field, f"must do {shape.task}, does {mine.task}")
        has_classes = shape.task not in ("sentence-embedding", "language-modelling")
        if not has_classes:
            return
        is_named = bool(label_names and self.label_names)
        if mine.num_labels == shape.num_labels and label_names == self.label_names:
            return
        if mine.num_labels != shape.num_labels or is_named:
            raise InvalidInput(
                field,
                f"must have the labels {_listed(label_names, shape.num_labels)} in this order, "
                f"has {_listed(self.label_names, mine.num_labels)}",
            )


def read_teacher(folder: Path, shape: ModelShape) -> Teacher:
    """The model of a folder, one that Snugnet wrote or any other, as a teacher for the task of
    `shape`.

    Raises:
        InvalidInput: the folder holds no model that does this task.
    """
    config = read_json(folder / CONFIG_FILE)
    tokenizer = None
    if not shape.reads_images:
        tokenizer = read_json(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    names = _label_names(config)
    if OWN_KEY in config:
        model, _ = read_subnet(folder)
        return Teacher(model=model, label_names=names, tokenizer=tokenizer)
    num_labels = Config(config).num_labels(MAX_LABELS) if "id2label" in config else 2
    checked = check_model_folder(folder, num_labels=num_labels, task=shape.task)
    model = import_model(folder, checked.shape, seed=0).eval()
    needs_head = checked.shape.has_head and not checked.shape.has_tied_head
    return Teacher(
        model=model,
        label_names=names,
        tokenizer=tokenizer,
        has_answers=checked.has_head or not needs_head,
    )


def _label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """None where they are those that transformers gives to classes without names."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return ()
    names = tuple(str(labels.get(str(i))) for i in range(len(labels)))
    return () if all(n == f"LABEL_{i}" for i, n in enumerate(names)) else names


def _listed(names: tuple[str, ...], count: int) -> str:
    return ", ".join(map(repr, names)) if names else f"(none named, {count} of them)"


def _check_same_input(field: str, mine: ModelShape, shape: ModelShape) -> None:
    if mine.reads_images != shape.reads_images:
        kinds = {True: "images", False: "texts"}
        raise InvalidInput(
            field, f"must read {kinds[shape.reads_images]}, reads {kinds[mine.reads_images]}"
        )
    if mine.reads_images:
        for name in ("image_size", "num_channels", "patch_size", "num_prefix_tokens"):
            theirs, wanted = getattr(mine, name), getattr(shape, name)
            if theirs != wanted:
                raise InvalidInput(field, f"must have the network's {name} {wanted}, has {theirs}")
    elif mine.has_token_type_input and not shape.has_token_type_input:
        raise InvalidInput(
            field, "must read pairs without token types, which the network's rows do not have"
        )
    elif mine.is_causal != shape.is_causal:
        kinds = {True: "earlier tokens only", False: "all tokens"}
        raise InvalidInput(
            field,
            f"must attend to {kinds[shape.is_causal]}, attends to {kinds[mine.is_causal]}",
        )


def _check_same_tokenizer(field: str, theirs: Spec | None, mine: Spec | None) -> None:
    if theirs is None and mine is None:
        return
    if theirs is None or mine is None:
        whose = "the teacher's" if theirs is None else "the network's (`StageData.tokenizer`)"
        raise InvalidInput(field, f"{whose} tokenizer is needed: both must read the same ids")
    theirs, mine = _canonical(theirs), _canonical(mine)
    for part in TOKENIZER_PARTS:
        if theirs[part] != mine[part]:
            found = _first_difference(theirs, mine) if part == "model" else f"its {part} differs"
            raise InvalidInput(
                field, f"must have the network's tokenizer, which reads the same ids: {found}"
            )


def _canonical(spec: Spec) -> dict[str, Any]:
    """As the library writes it today: files of its earlier versions differ without a reason."""
    found: dict[str, Any] = json.loads(Tokenizer.from_str(json.dumps(spec)).to_str())
    return found


def _first_difference(theirs: Spec, mine: Spec) -> str:
    pieces, others = (_pieces(spec["model"]) for spec in (theirs, mine))
    if len(pieces) != len(others):
        return f"it has {len(pieces)} pieces instead of {len(others)}"
    for piece, number in others.items():
        if pieces.get(piece) != number:
            return f"its piece {piece!r} is {pieces.get(piece, 'missing')} instead of {number}"
    return "its merges or settings differ"


def _pieces(model: Spec) -> dict[str, int]:
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        return vocab
    return {piece: place for place, (piece, _) in enumerate(vocab)}
