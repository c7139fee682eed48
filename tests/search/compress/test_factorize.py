from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from predictors.bounds import read_shape
from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import (
    DistillConfig,
    FactorizeConfig,
    PruneConfig,
    TrimVocabularyConfig,
)
from search.compress.factorize import factors, with_rank
from search.compress.network import Compressed
from search.compress.stages import apply_stage
from search.costs import size_bytes
from search.errors import InvalidInput
from search.export.folder import write_model
from search.shape import ModelShape
from search.training.evaluate import evaluate, predict
from tests.search.compress.data import (
    SEQ_LEN,
    assert_smaller_file_answers_alike,
    network,
    ordered,
    stage_data,
    teacher,
)
from tests.search.compress.test_vocabulary import prepared
from tests.search.families import SHAPES, batch_of, network_of

HALF = FactorizeConfig(rank=0.5)


def factorized() -> Compressed:
    return apply_stage(network(), HALF, stage_data())


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_a_table_of_full_rank_answers_as_before(family: str) -> None:
    shape = SHAPES[family]
    model, batch = network_of(shape), batch_of(shape)
    changed = with_rank(model, shape.embed_dim, torch.ones(shape.vocab_size))
    torch.testing.assert_close(changed(batch).logits, model(batch).logits, atol=1e-4, rtol=1e-4)


def test_words_that_are_read_often_keep_more_of_their_vectors() -> None:
    torch.manual_seed(0)
    table = torch.randn(40, 16)
    often = torch.ones(40)
    often[:6] = 100.0

    def errors(row_weights: torch.Tensor) -> torch.Tensor:
        narrow, spread = factors(table, 6, row_weights)
        assert narrow.shape == (40, 6)
        assert spread.shape == (16, 6)
        return (narrow @ spread.T - table).square().sum(1)

    weighted, plain = errors(often), errors(torch.ones(40))
    assert weighted[:6].max() < 0.01 < plain[:6].min()
    assert plain.sum() < weighted.sum(), "without weights the error of all words is the least"


def test_a_stage_weighs_words_by_how_often_the_training_split_reads_them() -> None:
    before, data = network(), stage_data()
    rows = replace(data.task.train, tokens=data.task.train.tokens % 5)  # type: ignore[type-var]
    after = apply_stage(
        before, FactorizeConfig(rank=0.25), replace(data, task=replace(data.task, train=rows))
    )
    words = after.model.embeddings
    found = words.word.weight @ words.spread.weight.T
    errors = (found - before.model.embeddings.word.weight).square().sum(1)
    assert errors[:5].max() < 0.2 * errors[5:].min()


def test_what_it_costs_is_what_the_two_factors_have() -> None:
    before, after = network(), factorized()
    shape = before.model.shape
    rank = shape.embed_dim // 2
    saved = shape.vocab_size * (shape.embed_dim - rank) - shape.embed_dim * rank
    assert after.model.shape.word_rank == rank
    assert before.num_params - after.num_params == saved
    assert after.num_params == sum(p.numel() for p in after.model.parameters())
    assert before.size_bytes - after.size_bytes == 4 * saved
    assert after.flops(SEQ_LEN) - before.flops(SEQ_LEN) == 2 * SEQ_LEN * rank * shape.embed_dim


def test_teaching_moves_the_spread_and_leaves_the_table() -> None:
    before, data = network(), stage_data()
    low = apply_stage(before, FactorizeConfig(rank=0.1), data)
    taught = apply_stage(low, DistillConfig(epochs=2, learning_rate=3e-3), data)
    words, learnt = low.model.embeddings, taught.model.embeddings
    assert torch.equal(words.word.weight, learnt.word.weight)
    assert not torch.equal(words.spread.weight, learnt.spread.weight)
    quality = evaluate(low.model, data.task.validation).value
    assert evaluate(taught.model, data.task.validation).value > quality


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_file_is_smaller_and_answers_alike(precision: str, tmp_path: Path) -> None:
    before, after = network(), factorized()
    assert_smaller_file_answers_alike(before, after, precision, tmp_path)
    subnet = after.subnet.with_precision(precision)
    spread = 4 * after.model.embeddings.spread.weight.numel()
    sizes = [size_bytes(n.model.shape, subnet) for n in (before, after)]
    assert precision == "fp32" or sizes[0] - sizes[1] == 60 * 16 - spread


def test_units_layers_and_features_can_be_pruned_and_words_trimmed_after() -> None:
    after = factorized()
    pruned = apply_stage(after, PruneConfig(keep=1.0), stage_data())
    rows = ordered(40)
    torch.testing.assert_close(
        predict(pruned.model, rows), predict(after.model, rows), atol=1e-4, rtol=1e-4
    )
    narrow = apply_stage(after, PruneConfig(keep=0.8, embed_dim=24), stage_data())
    assert narrow.model.embeddings.spread.weight.shape == (24, 16)
    assert narrow.num_params == sum(p.numel() for p in narrow.model.parameters())
    evaluate(narrow.model, rows)


def test_a_vocabulary_can_be_trimmed_before_and_after_with_the_same_words(tmp_path: Path) -> None:
    before, data = prepared()
    trim = TrimVocabularyConfig()
    first = apply_stage(apply_stage(before, trim, data), HALF, data)
    last = apply_stage(apply_stage(before, HALF, data), trim, data)
    assert first.model.shape == last.model.shape
    assert torch.equal(first.kept_tokens, last.kept_tokens)  # type: ignore[arg-type]
    save_compressed(first, tmp_path / "network.safetensors")
    read = load_compressed(tmp_path / "network.safetensors")
    rows = data.read_by(first).task.validation
    assert read.model.shape == first.model.shape
    assert torch.equal(predict(read.model, rows), predict(first.model, rows))


def test_a_shape_says_the_rank_only_where_there_is_one() -> None:
    plain, low = SHAPES["bert"], replace(SHAPES["bert"], word_rank=8)
    assert "word_rank" not in plain.to_dict()
    for shape in (plain, low):
        assert ModelShape.from_dict(shape.to_dict()) == shape
        assert read_shape(shape.to_dict()) == shape


def test_what_cannot_be_factorized_or_written_is_refused(tmp_path: Path) -> None:
    data = stage_data()
    for family, match in (("vit", "reads images"), ("gpt2", "the head too")):
        with pytest.raises(InvalidInput, match=match):
            apply_stage(Compressed.whole(network_of(SHAPES[family])), HALF, data)
    with pytest.raises(InvalidInput, match="of a lower rank already"):
        apply_stage(factorized(), HALF, data)
    with pytest.raises(InvalidInput, match="as ONNX only"):
        write_model(factorized().model, tmp_path)
    assert not teacher().shape.word_rank
