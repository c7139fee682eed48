"""ONNX Runtime: CPU kernels, and CUDA or TensorRT where its build and the machine have them."""

from __future__ import annotations

import importlib
from typing import Any

import onnxruntime

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

EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime:
    """Times whole calls: on a GPU, the copies of input and output are part of them."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.version: str = onnxruntime.__version__
        available = set(onnxruntime.get_available_providers())
        self.providers = tuple(p for p, name in EXECUTION_PROVIDERS.items() if name in available)

    @property
    def precisions(self) -> tuple[str, ...]:
        return PROVIDERS[self.name]["cpu"]

    def load(self, network: Network, workload: Workload) -> Runnable:
        wanted = EXECUTION_PROVIDERS[workload.provider]
        if workload.provider not in self.providers:
            raise RuntimeMissing(f"this build of onnxruntime has no {wanted}")
        path = onnx_file(network, workload.phase)
        try:
            session = onnxruntime.InferenceSession(
                path, session_options(workload), providers=_with_fallback(wanted)
            )
        except Exception as error:  # the library's own errors share no other base
            raise LoadingFailed(f"onnxruntime cannot load {network.key!r}: {error}") from error
        finally:
            drop_written_file(network)
        # It falls back to the CPU without an error when a provider's libraries are missing.
        if session.get_providers()[0] != wanted:
            raise RuntimeMissing(f"{wanted} does not start on this machine")
        return _Loaded(session, example_inputs(network, workload))


class _Loaded:
    def __init__(self, session: Any, inputs: Inputs) -> None:
        self._session, self._inputs = session, inputs

    def run(self) -> None:
        self._session.run(None, self._inputs)


def session_options(workload: Workload) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait by spinning would steal time from the network that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _with_fallback(wanted: str) -> list[str]:
    """GPU providers leave operators that they lack to the CPU, and must be told so."""
    cpu = EXECUTION_PROVIDERS["cpu"]
    return [wanted] if wanted == cpu else [wanted, cpu]


def create() -> OnnxRuntime:
    """Raises: RuntimeMissing when networks could not be built for it."""
    try:
        importlib.import_module("onnx")
    except ImportError as error:
        raise RuntimeMissing(f"onnx cannot be imported: {error}") from error
    return OnnxRuntime()
