"""PyTorch, eager: the extracted network itself, on the CPU or on CUDA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from predictors.protocol import Runnable
from predictors.runtimes.base import Network, RuntimeMissing, example_inputs
from predictors.workload import PROVIDERS, Workload
from search.errors import InvalidInput
from search.model.transformer import Batch, ElasticTransformer, KeyValueCache
from search.shape import ModelShape


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
        inputs = {
            name: torch.from_numpy(value).to(device)
            for name, value in example_inputs(network, workload).items()
        }
        return _Loaded(model, _batch(network.shape, inputs), _cache(network, inputs), workload)


def _batch(shape: ModelShape, inputs: Mapping[str, Tensor]) -> Batch:
    if shape.reads_images:
        pixels = inputs["pixel_values"]
        size = (len(pixels), shape.max_seq_len)
        return Batch(pixels, torch.ones(size, dtype=torch.int64, device=pixels.device))
    return Batch(inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids"))


def _cache(network: Network, inputs: Mapping[str, Tensor]) -> KeyValueCache:
    """What was read before; empty but in phase `decode`."""
    assert network.subnet is not None
    past = "past_key_values.{}.{}"
    layers = range(network.subnet.num_layers if past.format(0, "key") in inputs else 0)
    return KeyValueCache(
        [(inputs[past.format(i, "key")], inputs[past.format(i, "value")]) for i in layers]
    )


class _Loaded:
    def __init__(
        self, model: ElasticTransformer, batch: Batch, cache: KeyValueCache, workload: Workload
    ) -> None:
        self._model, self._batch, self._cache = model, batch, cache
        self._threads = workload.threads
        self._has_cache = workload.phase in ("prefill", "decode")
        self._is_cuda = batch.inputs.is_cuda

    @torch.inference_mode()
    def run(self) -> None:
        # Of the whole process: another network may have run with others since.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        # Every run starts from the same cache, which it extends.
        cache = self._cache.copy() if self._has_cache else None
        x_BTD, shared = self._model.begin(self._batch, cache=cache)
        for place in range(shared.subnet.num_layers):
            x_BTD, _ = self._model.run_layer(place, x_BTD, shared)
        # As in the exported file: a prompt is answered for its last token alone.
        answered = x_BTD[:, -1:] if self._has_cache else x_BTD
        self._model.answer(answered, self._batch, shared)
        if self._is_cuda:
            # A call returns once its kernels are queued; without this, only queueing is timed.
            torch.cuda.synchronize()


def create() -> Torch:
    return Torch()
