"""PyTorch, eager: the extracted network itself, on the CPU or on CUDA."""

from __future__ import annotations

import torch

from predictors.protocol import Runnable
from predictors.runtimes.base import Network, RuntimeMissing, example_inputs
from predictors.workload import PROVIDERS, Workload
from search.errors import InvalidInput
from search.model.transformer import Batch, ElasticTransformer


class Torch:
    """Builds networks from their shapes with random weights; knows no ONNX files."""

    name = "torch"

    def __init__(self) -> None:
        self.version: str = torch.__version__

    @property
    def providers(self) -> tuple[str, ...]:
        return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)

    @property
    def precisions(self) -> tuple[str, ...]:
        return PROVIDERS[self.name]["cpu"]

    def load(self, network: Network, workload: Workload) -> Runnable:
        if network.file is not None or network.subnet is None:
            raise InvalidInput(
                f"networks.{network.key}.blob",
                "torch builds networks itself and runs no ONNX file",
            )
        if network.subnet.precision not in self.precisions:
            raise InvalidInput(
                f"networks.{network.key}.subnet.precision",
                f"torch builds networks in {self.precisions}, not {network.subnet.precision!r}",
            )
        if workload.provider not in self.providers:
            raise RuntimeMissing(f"torch finds no {workload.provider} on this machine")
        device = torch.device(workload.provider)
        torch.manual_seed(0)
        # A network of the subnet's own sizes is what extraction yields.
        model = ElasticTransformer(network.shape, network.subnet).to(device).eval()
        inputs = example_inputs(network, workload).values()
        batch = Batch(*(torch.from_numpy(value).to(device) for value in inputs))
        return _Loaded(model, batch, workload.threads)


class _Loaded:
    def __init__(self, model: ElasticTransformer, batch: Batch, threads: int) -> None:
        self._model, self._batch, self._threads = model, batch, threads
        self._is_cuda = batch.inputs.is_cuda

    @torch.inference_mode()
    def run(self) -> None:
        # Of the whole process: another network may have run with others since.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        self._model(self._batch)
        if self._is_cuda:
            # A call returns once its kernels are queued; without this, only queueing is timed.
            torch.cuda.synchronize()


def create() -> Torch:
    return Torch()
