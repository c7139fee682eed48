"""Rows from which a quantizer learns the ranges of activations."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from search.errors import InvalidInput
from search.export.running import Feed, feed_of
from search.shape import ModelShape
from search.training.rows import Rows

# 128 to 300 rows are usual, and they are read once for every part of the quantizer.
CALIBRATION_ROWS = 300
FIELD = "calibration"
OTHER_TASK = "the rows are of another task"


def calibration_feeds(rows: Rows, shape: ModelShape, names: set[str]) -> Iterator[Feed]:
    """What a network with inputs of these names reads, one row a feed: padding is no data.

    Raises:
        InvalidInput: there are no rows, or they are of another task; the field is `calibration`.
    """
    if len(rows) == 0:
        raise InvalidInput(FIELD, "there are no rows to calibrate with")
    chosen = rows.spread(CALIBRATION_ROWS)
    _check_inputs(chosen, shape)
    _check_labels(chosen.labels_of(range(len(chosen))), shape)
    return (feed_of(chosen.batch([place]), names) for place in range(len(chosen)))


def _check_inputs(rows: Rows, shape: ModelShape) -> None:
    batch = rows.batch(range(len(rows)))
    if (batch.inputs.dim() == 4) != shape.reads_images:
        wanted = "images" if shape.reads_images else "texts"
        raise InvalidInput(FIELD, f"{OTHER_TASK}: the model reads {wanted}")
    if shape.reads_images:
        found = tuple(batch.inputs.shape[1:])
        wanted_size = (shape.num_channels, shape.image_size, shape.image_size)
        if found != wanted_size:
            raise InvalidInput(FIELD, f"images must be {wanted_size}, these are {found}")
        return
    if batch.token_types is not None and not shape.has_token_type_input:
        raise InvalidInput(FIELD, f"{OTHER_TASK}: the model reads single texts")
    if int(batch.inputs.max()) >= shape.vocab_size:
        raise InvalidInput(FIELD, f"tokens are from another vocabulary than {shape.vocab_size}")


def _check_labels(labels: Tensor, shape: ModelShape) -> None:
    """Each task has labels of its own form: vectors, one a token, one a row."""
    is_vector = labels.is_floating_point()
    if is_vector == shape.has_head:
        raise InvalidInput(FIELD, f"{OTHER_TASK} than {shape.task}")
    if is_vector:
        return
    if (labels.dim() == 2) != shape.answers_per_token:
        raise InvalidInput(FIELD, f"{OTHER_TASK} than {shape.task}")
    if int(labels.max()) >= shape.num_labels:
        raise InvalidInput(
            FIELD, f"label {int(labels.max())} is none of the model's {shape.num_labels}"
        )
