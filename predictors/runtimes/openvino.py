"""OpenVINO on the CPU, from the same ONNX files as ONNX Runtime, in fp32."""

from __future__ import annotations

from typing import Any

import openvino

from predictors.protocol import Runnable
from predictors.runtimes.base import (
    Inputs,
    LoadingFailed,
    Network,
    RuntimeMissing,
    example_inputs,
)
from predictors.runtimes.onnx_file import drop_written_file, onnx_file
from predictors.workload import PROVIDERS, Workload
from search.errors import InvalidInput


class OpenVino:
    """Compiles for one stream and fixed sizes, and asks for f32: else it takes bf16 on its own."""

    name = "openvino"

    def __init__(self) -> None:
        self.version: str = openvino.__version__.partition("-")[0]
        self._core = openvino.Core()
        if "CPU" not in self._core.available_devices:
            raise RuntimeMissing("openvino has no plugin for this CPU")

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(PROVIDERS[self.name])

    @property
    def precisions(self) -> tuple[str, ...]:
        return PROVIDERS[self.name]["cpu"]

    def load(self, network: Network, workload: Workload) -> Runnable:
        subnet = network.subnet
        if network.file is None and subnet and subnet.precision not in self.precisions:
            raise InvalidInput(
                f"networks.{network.key}.subnet.precision",
                f"openvino builds networks in {self.precisions}, not {subnet.precision!r}",
            )
        inputs = example_inputs(network, workload)
        path = onnx_file(network, workload.phase)
        try:
            # Bytes rather than a path: a file that is mapped must outlive the network.
            model = self._core.read_model(path.read_bytes())
            model.reshape({name: list(value.shape) for name, value in inputs.items()})
            compiled = self._core.compile_model(model, "CPU", _settings(workload))
        except Exception as error:  # the library's own errors share no other base
            raise LoadingFailed(f"openvino cannot load {network.key!r}: {error}") from error
        finally:
            drop_written_file(network)
        return _Loaded(compiled.create_infer_request(), inputs)


class _Loaded:
    def __init__(self, request: Any, inputs: Inputs) -> None:
        self._request = request
        for name, value in inputs.items():
            request.set_tensor(name, openvino.Tensor(value))

    def run(self) -> None:
        self._request.infer()


def _settings(workload: Workload) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": workload.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        # A thread that may not leave its core suffers from every neighbour that comes there.
        "ENABLE_CPU_PINNING": False,
    }


def create() -> OpenVino:
    """Raises: RuntimeMissing when this CPU has no plugin."""
    return OpenVino()
