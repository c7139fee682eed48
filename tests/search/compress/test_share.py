from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from predictors.bounds import check_subnet, read_shape
from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import (
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    ShareLayersConfig,
    SparsifyConfig,
)
from search.compress.network import Compressed
from search.compress.pipeline import CompressionTarget, run_recipe
from search.compress.recipe import CompressionRecipe
from search.compress.share import with_shared_layers
from search.compress.stages import apply_stage
from search.costs import size_bytes
from search.errors import InvalidInput
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.model.extract import extract
from search.space import SubnetConfig
from search.training.evaluate import evaluate, predict
from tests.search.compress.data import SEQ_LEN, network, ordered, stage_data

ALL = ShareLayersConfig(group=0)
PAIRS = ShareLayersConfig(group=2)


def shared(config: ShareLayersConfig = PAIRS) -> Compressed:
    return apply_stage(network(), config, stage_data())


def test_a_group_starts_with_its_first_layer_s_weights_or_their_mean() -> None:
    model = network().model
    own = [layer.attn.q.weight for layer in model.layers]  # type: ignore[union-attr]
    first, mean = (with_shared_layers(model, 2, start=s) for s in ("first", "mean"))
    assert len(first.layers) == len(mean.layers) == 2
    for found, expected in ((first, own[0]), (mean, (own[0] + own[1]) / 2)):
        assert torch.equal(found.get_parameter("layers.0.attn.q.weight"), expected)
        assert torch.equal(found.get_parameter("layers.1.attn.q.weight"), own[2])


def test_shared_layers_answer_as_copies_would() -> None:
    model = network().model
    tied = with_shared_layers(model, 2)
    copies = network().model
    copies.layers[1].load_state_dict(copies.layers[0].state_dict())
    rows = ordered(40)
    assert torch.equal(predict(tied, rows), predict(copies, rows))


def test_it_is_smaller_and_computes_as_much() -> None:
    before = network()
    per_layer = sum(p.numel() for p in before.model.layers[0].parameters())
    for config, fewer in ((PAIRS, 1), (ALL, 2)):
        after = shared(config)
        assert before.num_params - after.num_params == fewer * per_layer
        assert after.num_params == sum(p.numel() for p in after.model.parameters())
        assert before.size_bytes - after.size_bytes == 4 * fewer * per_layer
        assert after.flops(SEQ_LEN) == before.flops(SEQ_LEN)


def test_a_network_that_learns_from_the_teacher_recovers_with_its_layers_shared() -> None:
    data, rows = stage_data(), stage_data().task.validation
    tied = shared(ALL)
    taught = apply_stage(tied, DistillConfig(epochs=4, learning_rate=3e-3), data)
    lost = evaluate(tied.model, rows).value
    assert lost < 0.9 < evaluate(network().model, rows).value
    assert evaluate(taught.model, rows).value > lost + 0.05
    assert len(taught.model.layers) == 1
    assert taught.subnet.num_layers == 3


def test_a_recipe_for_bytes_keeps_it_and_one_for_flops_does_not() -> None:
    stages = (PAIRS, DistillConfig(epochs=0.5, learning_rate=1e-3))
    recipe = CompressionRecipe(stages=stages)
    for cost, is_kept in (("size_bytes", True), ("flops", False)):
        target = CompressionTarget(cost=cost)  # type: ignore[arg-type]
        _, report = next(run_recipe(network(), recipe, stage_data(), target))
        assert report.is_kept == is_kept
        assert report.after.flops == report.before.flops
        assert report.after.size_bytes < report.before.size_bytes


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_file_has_shared_weights_once(precision: str, tmp_path: Path) -> None:
    after = shared(ALL)
    subnet = after.subnet.with_precision(precision)
    path = export_onnx(after.model, subnet, tmp_path / "after.onnx")
    rows = ordered(64)
    parity = check_parity(
        path, rows, predict(after.model, rows, subnet), after.model.shape, precision=precision
    )
    assert precision == "int8" or parity.max_error < 1e-4
    names = [tensor.name for tensor in onnx.load(path).graph.initializer]
    assert not [name for name in names if name.startswith(("layers.1.", "layers.2."))]
    whole = export_onnx(network().model, subnet, tmp_path / "whole.onnx")
    saved = size_bytes(network().model.shape, subnet) - size_bytes(after.model.shape, subnet)
    assert whole.stat().st_size - path.stat().st_size > 0.95 * saved


def test_a_layer_that_stays_in_fp32_reads_what_its_group_has_in_int8(tmp_path: Path) -> None:
    after, rows = shared(ALL), ordered(64)
    shape, int8 = after.model.shape, after.subnet.with_precision("int8")
    mixed = SubnetConfig.from_dict({**int8.to_dict(), "float_layers": [1]})
    assert size_bytes(shape, mixed) == size_bytes(shape, int8)
    path = export_onnx(after.model, mixed, tmp_path / "mixed.onnx")
    whole = export_onnx(after.model, int8, tmp_path / "int8.onnx")
    assert path.stat().st_size < 1.05 * whole.stat().st_size
    check_parity(path, rows, predict(after.model, rows, mixed), shape, precision="int8")


def test_weights_can_be_removed_and_rounded_after() -> None:
    data = stage_data()
    sparse = apply_stage(shared(ALL), SparsifyConfig(sparsity=0.5, score="wanda"), data)
    assert set(sparse.masks) == {n for n in sparse.masks if n.startswith("layers.0.")}
    assert sparse.num_zeros > 0
    rounded = apply_stage(sparse, QuantizeConfig(format="fp16"), data)
    assert rounded.size_bytes == 2 * rounded.num_params


def test_a_checkpoint_and_a_shape_s_json_keep_the_groups(tmp_path: Path) -> None:
    after = shared()
    save_compressed(after, tmp_path / "network.safetensors")
    read, rows = load_compressed(tmp_path / "network.safetensors"), ordered(20)
    assert torch.equal(predict(read.model, rows), predict(after.model, rows))
    assert read_shape(after.model.shape.to_dict()) == after.model.shape


def test_what_cannot_be_shared_or_taken_apart_is_refused() -> None:
    for group, match in ((2, "share their weights already"), (4, "2 to the 3 layers")):
        before = shared() if group == 2 else network()
        with pytest.raises(InvalidInput, match=match):
            apply_stage(before, ShareLayersConfig(group=group), stage_data())
    pruned = apply_stage(network(), PruneConfig(keep=0.5), stage_data())
    assert len(set(zip(pruned.subnet.num_heads, pruned.subnet.ffn_dim, strict=True))) > 1
    with pytest.raises(InvalidInput, match="alike in groups of 3"):
        apply_stage(pruned, ALL, stage_data())
    with pytest.raises(InvalidInput, match="prune cannot follow share-layers"):
        CompressionRecipe(stages=(PAIRS, PruneConfig()))
    after = shared()
    with pytest.raises(InvalidInput, match="must be all"):
        extract(after.model, after.subnet.keeping([0, 2]))
    uneven = SubnetConfig(layers=(0, 1), num_heads=(4, 2), ffn_dim=(64, 64))
    with pytest.raises(InvalidInput, match="alike in groups of 2"):
        check_subnet(uneven, after.model.shape)
    for group in (1, -1):
        with pytest.raises(InvalidInput, match="0, or at least 2"):
            ShareLayersConfig(group=group)
