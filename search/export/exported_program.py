"""A network as PyTorch's own exported program (.pt2): torch runs it, without any code of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from search.export.errors import converting
from search.export.running import feed_of
from search.model.extract import extract
from search.model.transformer import Batch, ElasticTransformer, Output
from search.shape import ModelShape

MAX_BATCH = 2**16


def write_exported(model: ElasticTransformer, path: Path) -> Path:
    """Writes `path` (.pt2): any batch, any length up to the model's, in fp32.

    Inputs are called as those of the ONNX file; the answer is one tensor. int8 is not in it: the
    rounding of its training is no arithmetic that torch would run faster.

    Raises:
        ExportFailed: torch cannot trace the network.
    """
    # A copy, since tracing is noisy about gradients.
    network = extract(model, model.sizes.with_precision("fp32")).eval().requires_grad_(False)
    shape = model.shape
    wrapper = _Images if shape.reads_images else _Pairs if shape.has_token_type_input else _Texts
    with converting("torch.export"):
        program = torch.export.export(
            wrapper(network).eval(), (), _example(shape), dynamic_shapes=_sizes(shape)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
    return path


class ExportedNetwork:
    """A file in PyTorch, on as many threads as PyTorch is set to."""

    def __init__(self, path: Path) -> None:
        with converting("torch.export"):
            program = torch.export.load(path)
        self._module = program.module()
        self._wanted = {str(name) for name in program.graph_signature.user_inputs}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        feed = feed_of(batch, self._wanted)
        answer: Tensor = self._module(**{k: torch.from_numpy(v) for k, v in feed.items()})
        return answer


class _Texts(nn.Module):
    """Each of the three has the inputs of its kind by the names that users know."""

    def __init__(self, network: ElasticTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output: Output = self.network(Batch(input_ids, attention_mask))
        return output.logits


class _Pairs(_Texts):
    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> Tensor:
        output: Output = self.network(Batch(input_ids, attention_mask, token_type_ids))
        return output.logits


class _Images(_Texts):
    def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
        num_tokens = self.network.shape.max_seq_len
        mask = torch.ones(pixel_values.shape[0], num_tokens, dtype=torch.int64)
        output: Output = self.network(Batch(pixel_values, mask))
        return output.logits


def _example(shape: ModelShape) -> dict[str, Tensor]:
    """Two rows: a size of one would be taken for a constant."""
    if shape.reads_images:
        return {"pixel_values": torch.zeros(2, shape.num_channels, *2 * (shape.image_size,))}
    ones = torch.ones(2, min(8, shape.max_seq_len), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    if shape.has_token_type_input:
        names.append("token_type_ids")
    return {name: ones.clone() for name in names}


def _sizes(shape: ModelShape) -> dict[str, dict[int, Any]]:
    # By no names: of a named size torch before 2.13 asks for proof of what it itself supposes.
    batch = Dim.DYNAMIC(min=1, max=MAX_BATCH)
    if shape.reads_images:
        return {"pixel_values": {0: batch}}
    sizes = {0: batch, 1: Dim.DYNAMIC(min=1, max=shape.max_seq_len)}
    return dict.fromkeys(_example(shape), sizes)
