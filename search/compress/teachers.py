"""Teachers that a user names: networks beside the original, and whether they can teach it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from search.compress.teacher_facts import Spec, TeacherFacts, check_pieces, read_facts
from search.errors import InvalidInput
from search.export.loading import read_subnet
from search.model.checkpoint import TOKENIZER_FILE
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
        label_names, tokenizer, has_answers: see `TeacherFacts`.
    """

    model: ElasticTransformer
    label_names: tuple[str, ...] = ()
    tokenizer: Spec | None = None
    has_answers: bool = True

    @property
    def width(self) -> int:
        return self.model.sizes.width_in(self.model.shape)

    @property
    def facts(self) -> TeacherFacts:
        return TeacherFacts(
            shape=self.model.shape,
            label_names=self.label_names,
            tokenizer=self.tokenizer,
            has_answers=self.has_answers,
        )

    def check(self, name: str, shape: ModelShape, rows: Rows, tokenizer: Spec | None) -> None:
        """Whether it reads `rows` as the network of `shape` does.

        Raises:
            InvalidInput: it does not, and what would be right.
        """
        check_reads(f"teachers.{name}", self.facts, shape, rows, tokenizer)

    def check_answers(self, name: str, shape: ModelShape, label_names: tuple[str, ...]) -> None:
        """Whether its answers mean what those of the network of `shape` do.

        Raises:
            InvalidInput: they do not, and what would be right.
        """
        self.facts.check_answers(f"teachers.{name}", shape, label_names)


def read_teacher(folder: Path, shape: ModelShape) -> Teacher:
    """The model of a folder, one that Snugnet wrote or any other, as a teacher for the task of
    `shape`.

    Raises:
        InvalidInput: the folder holds no model that does this task.
    """
    facts = read_facts(folder, shape.task)
    if facts.is_ours:
        model, _ = read_subnet(folder)
    else:
        model = import_model(folder, facts.shape, seed=0).eval()
    return Teacher(
        model=model,
        label_names=facts.label_names,
        tokenizer=facts.tokenizer,
        has_answers=facts.has_answers,
    )


def check_reads(
    field: str, facts: TeacherFacts, shape: ModelShape, rows: Rows, tokenizer: Spec | None
) -> None:
    """Whether a teacher reads `rows` as the network of `shape` does.

    Raises:
        InvalidInput: it does not, and what would be right.
    """
    facts.check_input(field, shape)
    if facts.shape.reads_images:
        return
    _check_same_tokenizer(field, facts.tokenizer, tokenizer)
    if tokenizer is None and facts.shape.vocab_size != shape.vocab_size:
        raise InvalidInput(
            field,
            f"must have the network's {shape.vocab_size} words, got {facts.shape.vocab_size}",
        )
    facts.check_length(field, int(rows.lengths.max()))


def _check_same_tokenizer(field: str, theirs: Spec | None, mine: Spec | None) -> None:
    if theirs is None and mine is None:
        return
    if theirs is None or mine is None:
        whose = "the teacher's" if theirs is None else "the network's (`StageData.tokenizer`)"
        raise InvalidInput(field, f"{whose} tokenizer is needed: both must read the same ids")
    check_pieces(field, theirs, mine)
    theirs, mine = _canonical(field, theirs), _canonical(field, mine)
    for part in TOKENIZER_PARTS:
        if theirs[part] != mine[part]:
            found = "its merges or settings differ" if part == "model" else f"its {part} differs"
            raise InvalidInput(
                field, f"must have the network's tokenizer, which reads the same ids: {found}"
            )


def _canonical(field: str, spec: Spec) -> dict[str, Any]:
    """As the library writes it today: files of its earlier versions differ without a reason."""
    try:
        written = Tokenizer.from_str(json.dumps(spec)).to_str()
    except Exception as error:  # the library raises nothing more precise
        raise InvalidInput(field, f"its {TOKENIZER_FILE} cannot be read: {error}") from None
    found: dict[str, Any] = json.loads(written)
    return found
