"""What tells whether a network can teach another, before its weights are read. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import InvalidInput
from search.families.config import CONFIG_FILE, Config
from search.families.networks import MAX_LABELS, OWN_KEY, read_config
from search.model.checkpoint import (
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILE,
    check_file_names,
    check_model_folder,
    check_reader,
    check_tensor,
    read_json,
    stored_tensors,
)
from search.shape import ModelShape

Spec = Mapping[str, Any]
"""What a tokenizer.json says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherFacts:
    """Of a network that others are to learn from.

    Attributes:
        shape: at least as large as each of its layers.
        label_names: of its classes, in its order; empty where it has none, or nobody named them.
        tokenizer: what its tokenizer.json says; None: it reads images, or nobody knows.
        has_answers: whether its head was trained: a model as it was pretrained has none, and
            teaches by its states alone.
        is_ours: whether Snugnet wrote its folder.
    """

    shape: ModelShape
    label_names: tuple[str, ...] = ()
    tokenizer: Spec | None = None
    has_answers: bool = True
    is_ours: bool = False

    def check_input(self, field: str, shape: ModelShape) -> None:
        """Whether it reads what the network of `shape` does, tokenizers aside.

        Raises:
            InvalidInput: it does not, and what would be right.
        """
        mine = self.shape
        if mine.reads_images != shape.reads_images:
            kinds = {True: "images", False: "texts"}
            raise InvalidInput(
                field, f"must read {kinds[shape.reads_images]}, reads {kinds[mine.reads_images]}"
            )
        if mine.reads_images:
            for name in ("image_size", "num_channels", "patch_size", "num_prefix_tokens"):
                theirs, wanted = getattr(mine, name), getattr(shape, name)
                if theirs != wanted:
                    raise InvalidInput(
                        field, f"must have the network's {name} {wanted}, has {theirs}"
                    )
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

    def check_length(self, field: str, longest: int) -> None:
        """Raises: InvalidInput when texts of `longest` tokens are too long for it."""
        if longest > self.shape.max_seq_len:
            raise InvalidInput(
                field,
                f"must read texts of {longest} tokens, reads {self.shape.max_seq_len} at most",
            )

    def check_attention(self, field: str) -> None:
        """Raises: InvalidInput where there are no scores of pairs of tokens to learn."""
        if self.shape.attention == "linear":
            raise InvalidInput(
                field, "has linear attention, with no scores to learn: set attention to 0"
            )

    def check_answers(self, field: str, shape: ModelShape, label_names: tuple[str, ...]) -> None:
        """Whether its answers mean what those of the network of `shape` do.

        Raises:
            InvalidInput: they do not, and what would be right.
        """
        mine = self.shape
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


def read_facts(folder: Path, task: str | None) -> TeacherFacts:
    """Of a model folder, one that Snugnet wrote or any other.

    Args:
        task: that it is to teach; None: the first that its family does. One of our own folders
            says which it does.

    Raises:
        InvalidInput: the folder holds no model that does this task.
    """
    check_file_names([path.name for path in folder.iterdir()])
    config = read_json(folder / CONFIG_FILE)
    if OWN_KEY in config:
        shape, has_answers = _own_shape(folder, config), True
    else:
        num_labels = Config(config).num_labels(MAX_LABELS) if "id2label" in config else 2
        checked = check_model_folder(folder, num_labels=num_labels, task=task)
        shape = checked.shape
        has_answers = checked.has_head or shape.has_tied_head or not shape.has_head
    tokenizer = None
    if not shape.reads_images:
        tokenizer = read_json(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    return TeacherFacts(
        shape=shape,
        label_names=_label_names(config),
        tokenizer=tokenizer,
        has_answers=has_answers,
        is_ours=OWN_KEY in config,
    )


def check_pieces(field: str, theirs: Spec, mine: Spec) -> None:
    """Raises: InvalidInput where the same id is another piece in two tokenizers."""
    pieces, others = (_pieces(spec) for spec in (theirs, mine))
    found = ""
    if len(pieces) != len(others):
        found = f"it has {len(pieces)} pieces instead of {len(others)}"
    for piece, number in others.items():
        if not found and pieces.get(piece) != number:
            found = f"its piece {piece!r} is {pieces.get(piece, 'missing')} instead of {number}"
    if found:
        raise InvalidInput(
            field, f"must have the network's tokenizer, which reads the same ids: {found}"
        )


def _own_shape(folder: Path, config: Mapping[str, Any]) -> ModelShape:
    network, stored = read_config(config), stored_tensors(folder)
    for tensor in network.tensors():
        check_tensor(tensor, stored)
    check_reader(folder, network.shape)
    return network.shape


def _label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """None where they are those that transformers gives to classes without names."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return ()
    names = tuple(str(labels.get(str(i))) for i in range(len(labels)))
    return () if all(n == f"LABEL_{i}" for i, n in enumerate(names)) else names


def _listed(names: tuple[str, ...], count: int) -> str:
    return ", ".join(map(repr, names)) if names else f"(none named, {count} of them)"


def _pieces(spec: Spec) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, dict):
        return vocab
    # A stranger's file: an entry without a piece is none.
    found = [str(entry[0]) for entry in vocab if isinstance(entry, list) and entry]
    return {piece: place for place, piece in enumerate(found)}
