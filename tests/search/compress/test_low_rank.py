from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from predictors.bounds import read_shape
from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import DistillConfig, FactorizeFfnConfig, PruneConfig
from search.compress.distill import TaskData
from search.compress.low_rank import factors, with_ffn_rank
from search.compress.network import Compressed, StageData
from search.compress.stages import apply_stage
from search.errors import InvalidInput
from search.model.linears import InputMoments, around_linears, layer_matrix_names
from search.model.transformer import ElasticTransformer, Linear
from search.shape import ModelShape
from search.training.evaluate import evaluate, predict
from search.training.image_rows import ImageRows
from search.training.loop import TrainingRun
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.teacher import teacher_of
from tests.search.compress.data import (
    SEQ_LEN,
    assert_smaller_file_answers_alike,
    network,
    ordered,
    stage_data,
)
from tests.search.families import SHAPES, batch_of, network_of

DIGITS = replace(SHAPES["vit"], num_labels=10, num_layers=2)
QUARTER = FactorizeFfnConfig(rank=0.25)


def factorized(rank: float = 0.25) -> Compressed:
    return apply_stage(network(), FactorizeFfnConfig(rank=rank), stage_data())


def digits() -> tuple[ImageRows, ImageRows]:
    """The scanned digits of scikit-learn, to learn from and to be judged by."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images * 15).to(torch.uint8).view(-1, 1, 8, 8)
    level = torch.tensor([0.3])
    rows = ImageRows(pixels, torch.tensor(labels), level, level, DIGITS.max_seq_len)
    return rows.select(range(1400)), rows.select(range(1400, len(labels)))


def moments_of(model: ElasticTransformer) -> InputMoments:
    names = [name for name in layer_matrix_names(model) if ".ffn." in name]
    moments = InputMoments(model, names)
    with torch.no_grad(), around_linears(model, moments.around):
        model(batch_of(model.shape))
    return moments


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "vit"])
def test_matrices_of_full_rank_answer_as_before(family: str) -> None:
    model, batch = network_of(SHAPES[family]), batch_of(SHAPES[family])
    changed = with_ffn_rank(model, model.shape.embed_dim, moments_of(model))
    torch.testing.assert_close(changed(batch).logits, model(batch).logits, atol=1e-3, rtol=1e-3)


def test_outputs_on_what_is_read_keep_more_than_by_the_nearest_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 16, generator=generator)
    mixing = torch.randn(16, 16, generator=generator) * torch.logspace(0, -2, 16)
    x = torch.randn(500, 16, generator=generator) @ mixing.T
    outer, low = factors(weight, 4, (x.T @ x).double() / len(x))
    assert outer.shape == (24, 4)
    assert low.shape == (4, 16)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    nearest = u[:, :4] * s[:4] @ v[:4]

    def error(found: torch.Tensor) -> float:
        return float((x @ (found - weight).T).square().sum())

    best = torch.linalg.svdvals(x @ weight.T)[4:].square().sum()
    assert error(outer @ low) == pytest.approx(float(best), rel=1e-2)
    assert error(outer @ low) < 0.2 * error(nearest)


def test_the_mean_output_stays_though_directions_go() -> None:
    model = network_of(SHAPES["bert"])
    low = with_ffn_rank(model, 2, moments_of(model))
    before, after = (outputs_of("layers.0.ffn.up.weight", m) for m in (model, low))
    assert (after - before).abs().mean() > 0.3
    torch.testing.assert_close(after.mean((0, 1)), before.mean((0, 1)), atol=1e-4, rtol=1e-4)


def outputs_of(name: str, model: ElasticTransformer) -> torch.Tensor:
    """Of a matrix, for the tokens that `moments_of` looks at."""
    seen: list[torch.Tensor] = []

    def around(matrix: str, inner: Linear) -> Linear:
        def linear(
            x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
        ) -> torch.Tensor:
            y = inner(x, weight, bias)
            seen.extend([y] if matrix == name else [])
            return y

        return linear

    with torch.no_grad(), around_linears(model, around):
        model(batch_of(model.shape))
    return seen[0]


def test_what_it_costs_is_what_the_factors_have() -> None:
    before, after = network(), factorized()
    shape = before.model.shape
    dim, ffn, rank = shape.embed_dim, shape.ffn_dim, shape.embed_dim // 4
    saved = 3 * 2 * (dim * ffn - rank * (dim + ffn))
    assert after.model.shape.ffn_rank == rank
    assert before.num_params - after.num_params == saved
    assert after.num_params == sum(p.numel() for p in after.model.parameters())
    assert before.size_bytes - after.size_bytes == 4 * saved
    assert before.flops(SEQ_LEN) - after.flops(SEQ_LEN) == 2 * SEQ_LEN * saved


def test_a_network_of_digits_gets_back_by_distillation_what_a_low_rank_loses() -> None:
    train, validation = digits()
    torch.manual_seed(0)
    model = ElasticTransformer(DIGITS, dropout=0.0)
    run = TrainingRun(model, Schedule(learning_rate=3e-3, total_steps=250), seed=0)
    run.advance(finetuning_losses(model, BatchOrder(train, 32, 0)), should_stop=lambda: False)
    task = TaskData(train, validation, teacher_of(model.eval(), train), 32)
    data = StageData(task=task, seq_len=5)
    low = apply_stage(Compressed.whole(model), FactorizeFfnConfig(rank=0.1), data)
    taught = apply_stage(low, DistillConfig(epochs=3, learning_rate=3e-3), data)
    whole, lost, found = (evaluate(m, validation) for m in (model, low.model, taught.model))
    assert lost.value < whole.value - 0.02
    assert found.value > whole.value - 0.01
    assert found.loss < 0.8 * lost.loss


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_file_is_smaller_and_answers_alike(precision: str, tmp_path: Path) -> None:
    assert_smaller_file_answers_alike(network(), factorized(), precision, tmp_path)


def test_units_and_features_can_be_pruned_after() -> None:
    after = factorized()
    same = apply_stage(after, PruneConfig(keep=1.0), stage_data())
    rows = ordered(40)
    torch.testing.assert_close(
        predict(same.model, rows), predict(after.model, rows), atol=1e-4, rtol=1e-4
    )
    narrow = apply_stage(after, PruneConfig(keep=0.7, embed_dim=24), stage_data())
    assert narrow.model.get_submodule("layers.0.ffn.down_low").weight.shape[0] == 8
    assert narrow.num_params == sum(p.numel() for p in narrow.model.parameters())
    evaluate(narrow.model, rows)


def test_a_checkpoint_and_a_shape_s_json_keep_the_rank(tmp_path: Path) -> None:
    after = factorized()
    save_compressed(after, tmp_path / "network.safetensors")
    read, rows = load_compressed(tmp_path / "network.safetensors"), ordered(20)
    assert torch.equal(predict(read.model, rows), predict(after.model, rows))
    assert "ffn_rank" not in SHAPES["bert"].to_dict()
    data = after.model.shape.to_dict()
    assert ModelShape.from_dict(data) == read_shape(data) == after.model.shape


def test_what_cannot_be_factorized_is_refused() -> None:
    with pytest.raises(InvalidInput, match="of a lower rank already"):
        apply_stage(factorized(), QUARTER, stage_data())
    pruned = apply_stage(network(), PruneConfig(keep=0.2), stage_data())
    least = min(pruned.subnet.ffn_dim)
    assert least < 32
    with pytest.raises(InvalidInput, match=f"at most the {least} neurons"):
        apply_stage(pruned, FactorizeFfnConfig(rank=1.0), stage_data())
