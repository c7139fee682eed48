"""Formats that a network is written in beside the ONNX file that is measured: plain facts.

Nothing heavy is imported here: a server looks up what it may promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

FormatName = Literal[
    "onnx-fp16", "onnx-int8-static", "onnx-int4", "openvino", "openvino-int8", "pt2"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format.

    Attributes:
        file: its first file, by its place in a network's folder; others are beside it.
        packages: what writes and checks it, as it is imported and installed.
        extra: the extra of this package that brings those.
    """

    file: str
    packages: tuple[str, ...] = ()
    extra: str = "worker"

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that this machine lacks."""
        return tuple(name for name in self.packages if find_spec(name) is None)

    @property
    def advice(self) -> str:
        return f"pip install 'snugnet[{self.extra}]'"


FORMATS: Mapping[FormatName, Format] = {
    "onnx-fp16": Format(file="onnx/model_fp16.onnx", packages=("onnx", "onnxruntime")),
    "onnx-int8-static": Format(
        file="onnx/model_int8_static.onnx", packages=("onnx", "onnxruntime")
    ),
    "onnx-int4": Format(file="onnx/model_q4.onnx", packages=("onnx", "onnxruntime")),
    "openvino": Format(
        file="openvino/openvino_model.xml", packages=("openvino",), extra="openvino"
    ),
    "openvino-int8": Format(
        file="openvino/openvino_model_qint8_quantized.xml",
        packages=("openvino", "nncf"),
        extra="exports",
    ),
    "pt2": Format(file="exported/model.pt2", packages=("torch",)),
}
assert tuple(FORMATS) == get_args(FormatName)
