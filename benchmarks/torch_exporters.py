"""What PyTorch's own exporters make of a BERT of transformers: files to time beside ours."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.shape import ModelShape

ATTENTIONS = ("eager", "sdpa")
INPUTS = ("input_ids", "attention_mask")


class _Classifier(nn.Module):
    """What our files compute: the mean over tokens goes into a head."""

    def __init__(self, shape: ModelShape, attention: str) -> None:
        super().__init__()
        from transformers import AutoModel, BertConfig

        config = BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.embed_dim,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            intermediate_size=shape.ffn_dim,
            max_position_embeddings=shape.max_seq_len,
            type_vocab_size=max(1, shape.num_token_types),
        )
        self.bert = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=attention, add_pooling_layer=False
        )
        self.head = nn.Linear(shape.embed_dim, shape.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x_BTD = self.bert(input_ids, attention_mask).last_hidden_state
        mask_BT1 = attention_mask[..., None].to(x_BTD.dtype)
        pooled_BD = (x_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1.0)
        logits: Tensor = self.head(pooled_BD)
        return logits


def write_exports(
    shape: ModelShape, folder: Path, *, seq_len: int
) -> Iterator[tuple[str, Path | str]]:
    """Every exporter with every kind of attention: its name, and its file or why there is none.

    Batch and length stay open, as they are in our files.
    """
    if find_spec("transformers") is None:
        yield "transformers", "is not installed"
        return
    for (name, write), attention in itertools.product(_EXPORTERS.items(), ATTENTIONS):
        path = folder / f"{name}-{attention}.onnx"
        try:
            torch.manual_seed(0)
            write(_Classifier(shape, attention).eval(), _example(shape, seq_len), path)
        except Exception as error:  # exporters fail in ways of their own, and all of them count
            yield f"{name}-{attention}", f"{type(error).__name__}: {str(error)[:200]}"
        else:
            yield f"{name}-{attention}", path


def _example(shape: ModelShape, seq_len: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, min(1000, shape.vocab_size), (2, seq_len))
    return ids, torch.ones_like(ids)


def _torchscript(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    _export(model, example, path, opset_version=17, dynamo=False, dynamic_axes=axes)


def _dynamo(opset: int) -> Callable[[nn.Module, tuple[Tensor, ...], Path], None]:
    def write(model: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
        batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
        shapes = tuple({0: batch, 1: tokens} for _ in INPUTS)
        _export(
            model,
            example,
            path,
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )

    return write


def _export(model: nn.Module, example: tuple[Tensor, ...], path: Path, **settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older one says at length that it is old
        torch.onnx.export(model, example, str(path), input_names=list(INPUTS), **settings)


_EXPORTERS: Mapping[str, Callable[[nn.Module, tuple[Tensor, ...], Path], None]] = {
    "torchscript-17": _torchscript,
    "dynamo-18": _dynamo(18),
    "dynamo-23": _dynamo(23),
}
