"""The graph computes what transformers' BertModel computes, whatever was pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertModel

from search.export.graph import build_onnx, random_weights, weight_shapes
from search.shape import ModelShape
from search.space import SubnetConfig

Arrays = dict[str, npt.NDArray[np.float32]]

SHAPE = ModelShape(
    family="bert",
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    head_dim=8,
    ffn_dim=64,
    vocab_size=50,
    max_seq_len=16,
    num_token_types=2,
    num_labels=3,
)
PARTS = {
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.out": "attention.output.dense",
    "attn.norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn.norm": "output.LayerNorm",
}


def bert(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=SHAPE.vocab_size,
        hidden_size=SHAPE.embed_dim,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        intermediate_size=SHAPE.ffn_dim,
        max_position_embeddings=SHAPE.max_seq_len,
        type_vocab_size=SHAPE.num_token_types,
        initializer_range=0.3,  # large, so that a wrong path shows
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
    return model


def weights_of(model: BertModel) -> Arrays:
    state = {name: value.detach().numpy() for name, value in model.named_parameters()}
    rng = np.random.default_rng(1)
    weights = {
        "embeddings.word.weight": state["embeddings.word_embeddings.weight"],
        "embeddings.position.weight": state["embeddings.position_embeddings.weight"],
        "embeddings.token_type.weight": state["embeddings.token_type_embeddings.weight"],
        "embeddings.norm.weight": state["embeddings.LayerNorm.weight"],
        "embeddings.norm.bias": state["embeddings.LayerNorm.bias"],
        "head.weight": rng.standard_normal((SHAPE.num_labels, SHAPE.embed_dim), dtype=np.float32),
        "head.bias": rng.standard_normal(SHAPE.num_labels, dtype=np.float32),
    }
    for i in range(SHAPE.num_layers):
        for ours, theirs in PARTS.items():
            for kind in ("weight", "bias"):
                weights[f"layers.{i}.{ours}.{kind}"] = state[f"encoder.layer.{i}.{theirs}.{kind}"]
    return weights


def batch(lengths: tuple[int, ...], seq_len: int) -> dict[str, npt.NDArray[np.int64]]:
    ids = np.random.default_rng(2).integers(0, SHAPE.vocab_size, (len(lengths), seq_len))
    mask = (np.arange(seq_len) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask}


def expected_logits(
    model: BertModel, weights: Arrays, inputs: dict[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    """Mean pooling and a linear head over transformers' hidden states."""
    with torch.no_grad():
        hidden = model(**{k: torch.from_numpy(v) for k, v in inputs.items()}).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    pooled = (hidden.numpy() * mask).sum(1) / mask.sum(1)
    logits: npt.NDArray[np.float32] = pooled @ weights["head.weight"].T + weights["head.bias"]
    return logits


def run(
    model: onnx.ModelProto, inputs: dict[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits: npt.NDArray[np.float32] = session.run(["logits"], inputs)[0]
    return logits


@pytest.mark.parametrize(("lengths", "seq_len"), [((7,), 7), ((16, 16), 16), ((9, 3, 1), 9)])
def test_full_graph_equals_transformers(lengths: tuple[int, ...], seq_len: int) -> None:
    model = bert()
    weights = weights_of(model)
    inputs = batch(lengths, seq_len)
    graph = build_onnx(SHAPE, SubnetConfig.full(SHAPE), weights)
    np.testing.assert_allclose(
        run(graph, inputs), expected_logits(model, weights, inputs), atol=1e-4
    )


def test_pruned_heterogeneous_subnet_equals_the_full_model_with_the_pruned_parts_zeroed() -> None:
    subnet = SubnetConfig(layers=(0, 2), num_heads=(3, 1), ffn_dim=(24, 40))
    model = bert()
    weights = weights_of(model)
    pruned = {k: v for k, v in weights.items() if not k.startswith("layers.")}
    for i, (layer, heads, ffn) in enumerate(
        zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True)
    ):
        source = {k: weights[f"layers.{layer}.{k}"] for k in layer_names(weights)}
        for name, value in prefix_of(source, heads * SHAPE.head_dim, ffn).items():
            pruned[f"layers.{i}.{name}"] = value
        zero_pruned_parts_(model, layer, heads * SHAPE.head_dim, ffn)
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[i] for i in subnet.layers])

    inputs = batch((9, 4), 9)
    graph = build_onnx(SHAPE, subnet, pruned)
    np.testing.assert_allclose(
        run(graph, inputs), expected_logits(model, pruned, inputs), atol=1e-4
    )


def layer_names(weights: Arrays) -> list[str]:
    return [k.removeprefix("layers.0.") for k in weights if k.startswith("layers.0.")]


def prefix_of(layer: Arrays, attn_dim: int, ffn_dim: int) -> Arrays:
    cut = dict(layer)
    for name in ("q", "k", "v"):
        for kind in ("weight", "bias"):
            cut[f"attn.{name}.{kind}"] = layer[f"attn.{name}.{kind}"][:attn_dim]
    cut["attn.out.weight"] = layer["attn.out.weight"][:, :attn_dim]
    cut["ffn.up.weight"] = layer["ffn.up.weight"][:ffn_dim]
    cut["ffn.up.bias"] = layer["ffn.up.bias"][:ffn_dim]
    cut["ffn.down.weight"] = layer["ffn.down.weight"][:, :ffn_dim]
    return cut


def zero_pruned_parts_(model: BertModel, layer: int, attn_dim: int, ffn_dim: int) -> None:
    with torch.no_grad():
        model.encoder.layer[layer].attention.output.dense.weight[:, attn_dim:] = 0
        model.encoder.layer[layer].output.dense.weight[:, ffn_dim:] = 0


def test_padding_and_its_content_do_not_change_the_answer() -> None:
    graph = build_onnx(SHAPE, SubnetConfig.full(SHAPE), weights_of(bert()))
    padded = batch((5, 5), 12)
    padded["input_ids"][1] = padded["input_ids"][0]
    padded["input_ids"][1, 5:] = 0
    alone = {k: v[:1, :5] for k, v in padded.items()}
    expected = run(graph, alone)[0]
    np.testing.assert_allclose(run(graph, padded), [expected, expected], atol=1e-5)


def test_a_row_of_padding_alone_yields_finite_logits() -> None:
    graph = build_onnx(SHAPE, SubnetConfig.full(SHAPE), None)
    assert np.isfinite(run(graph, batch((3, 0), 4))).all()


def test_random_weights_repeat_and_take_a_smaller_vocabulary() -> None:
    subnet = SubnetConfig(layers=(1,), num_heads=(2,), ffn_dim=(16,))
    first, again = (build_onnx(SHAPE, subnet, None, vocab_size=10, seed=3) for _ in range(2))
    assert first.SerializeToString() == again.SerializeToString()
    table = next(t for t in first.graph.initializer if t.name == "embeddings.word.weight")
    assert list(table.dims) == [10, SHAPE.embed_dim]


def test_a_missing_or_misshapen_weight_is_named() -> None:
    subnet = SubnetConfig.full(SHAPE)
    weights = random_weights(weight_shapes(SHAPE, subnet), seed=0)
    lacking = {k: v for k, v in weights.items() if k != "layers.1.ffn.up.bias"}
    with pytest.raises(ValueError, match=r"layers\.1\.ffn\.up\.bias"):
        build_onnx(SHAPE, subnet, lacking)
    weights["layers.2.attn.q.weight"] = weights["layers.2.attn.q.weight"][:8]
    with pytest.raises(ValueError, match=r"layers\.2\.attn\.q\.weight"):
        build_onnx(SHAPE, subnet, weights)


def test_the_written_file_is_found_valid(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(build_onnx(SHAPE, SubnetConfig.full(SHAPE), None), path)
    onnx.checker.check_model(path, full_check=True)
