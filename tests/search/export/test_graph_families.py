"""Every family's file answers as the network that it was made from."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from search.export.graph import build_onnx, output_name
from search.export.package import export_onnx
from search.model.extract import extract, to_arrays
from search.model.transformer import Batch, ElasticTransformer
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig
from tests.search.families import LINEAR, RARE, SHAPES, batch_of, network_of

DECODERS = [name for name, shape in SHAPES.items() if shape.is_causal]


def drawn(shape: ModelShape, seed: int, precision: str = "fp32") -> SubnetConfig:
    space = SearchSpace.for_shape(shape, "wide")
    return space.sample(random.Random(seed)).with_precision(precision)


def session_of(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feed_of(batch: Batch, shape: ModelShape) -> dict[str, Any]:
    if shape.reads_images:
        return {"pixel_values": batch.inputs.numpy()}
    feed = {"input_ids": batch.inputs.numpy(), "attention_mask": batch.attention_mask.numpy()}
    if batch.token_types is not None:
        feed["token_type_ids"] = batch.token_types.numpy()
    return feed


def answer(session: onnxruntime.InferenceSession, feed: dict[str, Any]) -> Any:
    return session.run(None, feed)[0]


def real_places(batch: Batch, shape: ModelShape) -> Any:
    return batch.attention_mask.bool().numpy() if shape.answers_per_token else slice(None)


@pytest.mark.parametrize("name", RARE)
def test_low_rank_shared_and_linear_networks_answer_alike(name: str) -> None:
    shape, given = RARE[name], batch_of(RARE[name])
    model = network_of(shape)
    graph = build_onnx(shape, model.sizes, to_arrays(model))
    found = answer(session_of(graph), feed_of(given, shape))
    real = real_places(given, shape)
    expected = model(given).logits.detach().numpy()
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4, rtol=1e-4)


def test_linear_attention_makes_nothing_of_the_size_of_all_pairs_of_tokens() -> None:
    shape = replace(LINEAR["bert"], max_seq_len=512)
    graph = build_onnx(shape, SubnetConfig.full(shape), None)
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    sizes = [
        [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in inferred.graph.value_info
    ]
    assert any("seq" in size for size in sizes)
    assert not [size for size in sizes if size.count("seq") > 1]


def test_weights_that_layers_share_are_in_the_graph_once() -> None:
    one, all_ = (replace(SHAPES["bert"], layers_per_group=group) for group in (1, 3))
    apart, shared = (
        {t.name for t in build_onnx(s, SubnetConfig.full(s), None).graph.initializer}
        for s in (one, all_)
    )
    assert apart - shared == {n for n in apart if n.startswith(("layers.1.", "layers.2."))}
    assert shared < apart


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SHAPES)
def test_the_file_answers_as_the_network(name: str, seed: int) -> None:
    shape, given = SHAPES[name], batch_of(SHAPES[name])
    subnet = drawn(shape, seed)
    small = extract(network_of(shape), subnet).eval()
    graph = build_onnx(shape, subnet, to_arrays(small))
    onnx.checker.check_model(graph, full_check=True)
    with torch.no_grad():
        expected = small(given).logits.numpy()
    found = answer(session_of(graph), feed_of(given, shape))
    assert found.shape == expected.shape
    real = real_places(given, shape)
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "task", ["pair-classification", "token-classification", "sentence-embedding"]
)
def test_an_encoder_s_file_answers_for_every_task(task: str) -> None:
    shape = ModelShape.from_dict({**SHAPES["bert"].to_dict(), "task": task})
    model, given = network_of(shape), batch_of(shape)
    if shape.has_token_type_input:
        given = given._replace(token_types=(torch.arange(10) > 4).long().expand(4, -1).clone())
    with torch.no_grad():
        expected = model(given).logits.numpy()
    session = session_of(build_onnx(shape, model.sizes, to_arrays(model)))
    assert session.get_outputs()[0].name == output_name(shape)
    found = answer(session, feed_of(given, shape))
    real = real_places(given, shape)
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", DECODERS)
def test_a_prompt_and_tokens_one_by_one_answer_as_the_whole_text(name: str, seed: int) -> None:
    shape = SHAPES[name]
    subnet = drawn(shape, seed)
    small = extract(network_of(shape), subnet).eval()
    ids = torch.randint(1, shape.vocab_size, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = small(Batch(ids, torch.ones_like(ids))).logits.numpy()
    prefill, decode = (
        session_of(build_onnx(shape, subnet, to_arrays(small), phase=phase))
        for phase in ("prefill", "decode")
    )
    num_read = 5
    prompt = Batch(ids[:, :num_read], torch.ones(2, num_read, dtype=torch.int64))
    logits, *present = prefill.run(None, feed_of(prompt, shape))
    np.testing.assert_allclose(logits, whole[:, num_read - 1], atol=1e-4, rtol=1e-4)
    names = [output.name for output in decode.get_outputs()][1:]
    for place in range(num_read, ids.shape[1]):
        past = {
            n.replace("present", "past_key_values"): v for n, v in zip(names, present, strict=True)
        }
        feed = {
            "input_ids": ids[:, place : place + 1].numpy(),
            "attention_mask": np.ones((2, place + 1), dtype=np.int64),
        }
        logits, *present = decode.run(None, feed | past)
        np.testing.assert_allclose(logits, whole[:, place], atol=1e-4, rtol=1e-4)
    assert present[0].shape[2] == ids.shape[1]


def test_an_encoder_has_no_cache() -> None:
    shape = SHAPES["bert"]
    with pytest.raises(ValueError, match="has no phase 'decode'"):
        build_onnx(shape, SubnetConfig.full(shape), None, phase="decode")


def rounded(model: ElasticTransformer, subnet: SubnetConfig, given: Batch) -> Any:
    """One row a call, as the file's activations are scaled."""
    with torch.no_grad():
        return torch.cat([model(row, subnet).logits for row in rows_of(given)]).numpy()


def rows_of(given: Batch) -> list[Batch]:
    return [Batch(*(part[i : i + 1] for part in given[:2])) for i in range(len(given.inputs))]


@pytest.mark.parametrize("floats", [(), (1,)], ids=["all int8", "one layer in fp32"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen3", "vit"])
def test_an_int8_file_rounds_as_its_simulation(
    tmp_path: Path, name: str, floats: tuple[int, ...]
) -> None:
    shape = SHAPES[name]
    torch.manual_seed(0)
    model = ElasticTransformer(shape, weight_bits=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    given = batch_of(shape)
    given = given._replace(attention_mask=torch.ones_like(given.attention_mask))
    full = SubnetConfig.full(shape)
    subnet = SubnetConfig.from_dict(full.to_dict() | {"precision": "int8", "float_layers": floats})
    session = session_of(export_onnx(model, subnet, tmp_path / "int8.onnx"))
    found = np.concatenate([answer(session, feed_of(row, shape)) for row in rows_of(given)])
    simulated, exact = rounded(model, subnet, given), rounded(model, full, given)
    error, expected = np.abs(found - simulated).mean(), np.abs(exact - simulated).mean()
    assert expected > 0
    assert error < 0.35 * expected
