"""int8 for OpenVINO by NNCF's post-training quantization, with layers kept in fp32 where it harms.

NNCF scales activations once, from rows of the training split; ONNX Runtime's dynamic int8 does so
in every run. Its own accuracy control puts operators back one by one; ours climbs a ladder of at
most three rungs, and a network that fails on all of them stays as it was.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from torch import Tensor

from search.errors import SnugnetError
from search.export.calibration import calibration_feeds
from search.export.errors import converting
from search.export.openvino_ir import SETTINGS
from search.export.parity import MIN_INT8_AGREEMENT, Parity, compare
from search.export.quantize import HEAD_NODE
from search.export.running import Feed, answers_of, feed_of, open_network
from search.model.transformer import Batch
from search.shape import ModelShape
from search.training.rows import Rows
from search.training.sensitivity import rungs


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What an int8 file is held against: rows, and the float network's answers to them.

    `min_agreement` is the least share of equal answers (of vectors, the mean cosine).
    """

    rows: Rows
    expected: Tensor
    min_agreement: float = MIN_INT8_AGREEMENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Outcome:
    """`float_layers` stay in fp32; all of the network does where `is_float`, and no file is."""

    parity: Parity
    float_layers: tuple[int, ...]
    is_float: bool = False


def quantize_openvino(
    float_path: Path,
    path: Path,
    *,
    shape: ModelShape,
    num_layers: int,
    calibration: Rows,
    judged: Judgement,
    seconds: float = float("inf"),
) -> Int8Outcome:
    """Writes `path` (.xml, .bin) in int8, with as few layers in fp32 as the agreement asks for.

    Rungs: none; the one layer that int8 harms most; the worse half of them.

    Args:
        float_path: the network in OpenVINO's format, in fp32.
        seconds: no further rung is begun when one more would be likely to end after this time.

    Returns:
        The first rung whose file agrees; where none does, the last one's parity and no file.

    Raises:
        InvalidInput: `calibration` is empty or of another task.
        ExportFailed: NNCF refuses the network.
    """
    begun = time.monotonic()
    worst: tuple[int, ...] = ()
    for rung, count in enumerate(rungs(num_layers)):
        kept = tuple(sorted(worst[:count]))
        model = _quantized(float_path, shape, calibration, kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, path, compress_to_fp16=False)
        answers = answers_of(open_network(path), judged.rows)
        parity = compare(answers, judged.expected, shape, num_rows=len(judged.rows))
        if parity.agreement >= judged.min_agreement:
            return Int8Outcome(parity=parity, float_layers=kept)
        spent = time.monotonic() - begun
        if spent * (rung + 2) / (rung + 1) > seconds:
            break
        if rung == 0:
            worst = _by_harm(float_path, path, shape, num_layers, judged.rows)
    for file in (path, path.with_suffix(".bin")):
        file.unlink()
    return Int8Outcome(parity=parity, float_layers=(), is_float=True)


def _quantized(
    float_path: Path, shape: ModelShape, calibration: Rows, kept: Sequence[int]
) -> openvino.Model:
    model = openvino.Core().read_model(float_path)
    names = {port.any_name for port in model.inputs}
    feeds = list(calibration_feeds(calibration, shape, names))
    patterns = [rf"layers\.{layer}\..*" for layer in kept]
    if shape.task != "language-modelling":
        # As in the ONNX file: a head of a few labels costs nothing, its errors are the answer's.
        patterns.append(HEAD_NODE.replace(".", r"\."))
    with converting("nncf"), _quietly():
        return _quantize(model, feeds, patterns)


def _quantize(model: openvino.Model, feeds: list[Feed], patterns: list[str]) -> openvino.Model:
    # Else it reports every model that it quantizes to its makers.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    nncf.set_log_level(logging.ERROR)
    # `Any`: its types name all of its backends, of which we have one.
    quantize: Any = nncf.quantize
    quantized: openvino.Model = quantize(
        model,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
    )
    return quantized


def _by_harm(
    float_path: Path, int8_path: Path, shape: ModelShape, num_layers: int, rows: Rows
) -> tuple[int, ...]:
    """Layers, those first that int8 harms most.

    A layer's harm is by how much the distance to the float network's hidden states, relative to
    their size, grows over it.
    """
    part = "residual" if shape.norm_first else "norm"
    names = [f"layers.{layer}.ffn.{part}" for layer in range(num_layers)]
    exact, rounded = (_Hidden(path, names) for path in (float_path, int8_path))
    distances = np.zeros(num_layers)
    for place in range(min(len(rows), 32)):
        batch = rows.batch([place])
        pairs = zip(exact(batch), rounded(batch), strict=True)
        distances += [np.linalg.norm(a - b) / (np.linalg.norm(a) + 1e-9) for a, b in pairs]
    harm = np.diff(distances, prepend=0.0)
    return tuple(int(layer) for layer in np.argsort(-harm, kind="stable"))


class _Hidden:
    """Output of each layer of a file."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        model = openvino.Core().read_model(path)
        inputs = {port.any_name for port in model.inputs}
        ports = model.add_outputs(list(names))
        if len(ports) != len(names):
            raise SnugnetError(f"{path.name} does not name the outputs of its layers")
        self._compiled = openvino.Core().compile_model(model, "CPU", SETTINGS)
        self._inputs, self._names = inputs, names

    def __call__(self, batch: Batch) -> list[npt.NDArray[np.float32]]:
        found = self._compiled(feed_of(batch, self._inputs))
        return [found[name].copy() for name in self._names]


@contextmanager
def _quietly() -> Iterator[None]:
    """Its progress bars are for terminals."""
    with redirect_stdout(io.StringIO()):
        yield
