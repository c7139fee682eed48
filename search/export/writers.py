"""A network in each of `formats.FORMATS`: written, and its answers compared with the network's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx
from torch import Tensor

from search.export.calibration import calibration_feeds
from search.export.errors import ExportFailed
from search.export.external import save_onnx
from search.export.formats import FORMATS, FormatName
from search.export.graph import build_onnx
from search.export.half import halve_
from search.export.int4 import quantize_int4_
from search.export.parity import MIN_INT8_AGREEMENT, Parity, ParityError, check_parity, compare
from search.export.quantize import float_nodes
from search.export.ranges import products_of, ranges_of
from search.export.running import file_answers
from search.export.static_int8 import quantize_static_
from search.model.extract import to_arrays
from search.model.fakequant import weight_steps
from search.model.transformer import ElasticTransformer
from search.training.evaluate import predict
from search.training.rows import Rows
from search.training.sensitivity import by_harm, rungs

INT4 = "weights of the layers in 4 bits, of tables in 8; computed in fp32, not faster for it"
ROUNDING = "in floating point: the network's int8 is the rounding of its ONNX file"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network by itself, and what its files are made and judged with.

    Attributes:
        calibration: rows of the training split.
        judged: others, on which a file's answers are compared.
        seconds: see `quantize_openvino`.
    """

    model: ElasticTransformer
    calibration: Rows
    judged: Rows
    seconds: float = float("inf")

    @cached_property
    def expected(self) -> Tensor:
        """The network's answers to `judged`, without the rounding of int8."""
        return predict(self.model, self.judged, self.model.sizes.with_precision("fp32"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written: files by their places in the network's folder, the first one the main."""

    files: Mapping[str, Path]
    precision: str
    parity: Parity
    note: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


def export(name: FormatName, subject: Subject, folder: Path) -> Exported:
    """Writes a network in a format into `folder`, under the format's names.

    Raises:
        ExportFailed: a package is missing, a converter refuses the network, or the file answers
            otherwise than the network (`ParityError`).
        InvalidInput: `subject.calibration` is empty or of another task.
    """
    if missing := FORMATS[name].missing:
        raise ExportFailed(f"{', '.join(missing)} is not installed: {FORMATS[name].advice}")
    return _WRITERS[name](subject, folder)


def _onnx_fp16(subject: Subject, folder: Path) -> Exported:
    files = save_onnx(halve_(_float_graph(subject.model)), _place_of("onnx-fp16", folder))
    return _checked(subject, folder, files, "fp16")


def _onnx_int8_static(subject: Subject, folder: Path) -> Exported:
    """Where too few answers agree, the layers that int8 harms most stay in fp32."""
    model = subject.model
    sizes, shape = model.sizes, model.shape
    graph = _int8_graph(model)
    names = {given.name for given in graph.graph.input}
    feeds = calibration_feeds(subject.calibration, shape, names)
    read = list(products_of(graph.graph, float_nodes(shape, sizes)))
    ranges = ranges_of(graph, read, feeds)
    path = _place_of("onnx-int8-static", folder)
    worst: tuple[int, ...] = ()
    for count in rungs(sizes.num_layers):
        kept = tuple(sorted({*sizes.float_layers, *worst[:count]}))
        rounded = quantize_static_(
            _int8_graph(model),
            ranges,
            float_nodes=float_nodes(shape, replace(sizes, precision="int8", float_layers=kept)),
            weight_steps=weight_steps(model.weight_bits),
        )
        files = save_onnx(rounded, path)
        answers = file_answers(path, subject.judged)
        parity = compare(answers, subject.expected, shape, num_rows=len(subject.judged))
        if parity.agreement >= MIN_INT8_AGREEMENT:
            break
        worst = worst or by_harm(model, sizes, subject.judged)
    else:
        raise ParityError(
            f"{path.name} answers as the network for {parity.agreement:.1%} of "
            f"{len(subject.judged)} rows only, layers {_listed(kept)} in fp32"
        )
    return Exported(
        files=_by_name(folder, files),
        precision="int8",
        parity=parity,
        note=f"in fp32: layers {_listed(kept)}" if kept else "",
    )


def _onnx_int4(subject: Subject, folder: Path) -> Exported:
    """A network that was not trained for four bits may lose too many answers by them."""
    files = save_onnx(quantize_int4_(_float_graph(subject.model)), _place_of("onnx-int4", folder))
    return _checked(subject, folder, files, "int4", INT4)


def _openvino(subject: Subject, folder: Path) -> Exported:
    files = _write_float_ir(subject, folder)
    return _checked(subject, folder, files, "fp32")


def _openvino_int8(subject: Subject, folder: Path) -> Exported:
    """Where no int8 file agrees, the one in fp32 is what is delivered, under its own name."""
    from search.export.openvino_int8 import Judgement, quantize_openvino
    from search.export.openvino_ir import weights_file

    path = folder / FORMATS["openvino-int8"].file
    model = subject.model
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        float_path, _ = _write_float_ir(subject, Path(scratch))
        outcome = quantize_openvino(
            float_path,
            path,
            shape=model.shape,
            num_layers=model.sizes.num_layers,
            calibration=subject.calibration,
            judged=Judgement(rows=subject.judged, expected=subject.expected),
            seconds=subject.seconds,
        )
    if outcome.is_float:
        files = _write_float_ir(subject, folder)
        agreement = outcome.parity.agreement
        why = f"in fp32: in int8 it would answer alike for {agreement:.1%} of rows only"
        return _checked(subject, folder, files, "fp32", why)
    layers = _listed(outcome.float_layers)
    return Exported(
        files=_by_name(folder, (path, weights_file(path))),
        precision="int8",
        parity=outcome.parity,
        note=f"in fp32: layers {layers}" if layers else "",
    )


def _pt2(subject: Subject, folder: Path) -> Exported:
    from search.export.exported_program import write_exported

    path = write_exported(subject.model, folder / FORMATS["pt2"].file)
    return _checked(subject, folder, (path,), "fp32")


_WRITERS: Mapping[FormatName, Callable[[Subject, Path], Exported]] = {
    "onnx-fp16": _onnx_fp16,
    "onnx-int8-static": _onnx_int8_static,
    "onnx-int4": _onnx_int4,
    "openvino": _openvino,
    "openvino-int8": _openvino_int8,
    "pt2": _pt2,
}


def _place_of(name: FormatName, folder: Path) -> Path:
    """Of a format's first file, in a folder that is there."""
    path = folder / FORMATS[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _float_graph(model: ElasticTransformer) -> onnx.ModelProto:
    return build_onnx(model.shape, model.sizes.with_precision("fp32"), to_arrays(model))


def _int8_graph(model: ElasticTransformer) -> onnx.ModelProto:
    """In fp32, but with a head that can be rounded: a tied one has a matrix of its own."""
    return build_onnx(model.shape, model.sizes.with_precision("int8"), to_arrays(model))


def _write_float_ir(subject: Subject, folder: Path) -> tuple[Path, Path]:
    from search.export.openvino_ir import weights_file, write_openvino

    path = folder / FORMATS["openvino"].file
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        onnx_path = Path(scratch) / "model.onnx"
        save_onnx(_float_graph(subject.model), onnx_path)
        write_openvino(onnx_path, path)
    return path, weights_file(path)


def _checked(
    subject: Subject, folder: Path, files: Sequence[Path], precision: str, note: str = ""
) -> Exported:
    """Raises: ParityError."""
    parity = check_parity(
        files[0], subject.judged, subject.expected, subject.model.shape, precision=precision
    )
    if not note and subject.model.sizes.precision == "int8":
        note = ROUNDING
    return Exported(files=_by_name(folder, files), precision=precision, parity=parity, note=note)


def _by_name(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in files}


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
