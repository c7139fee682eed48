from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import (
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    TrimVocabularyConfig,
)
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.pieces import trimmed_tokenizer
from search.compress.pipeline import CompressionTarget, run_recipe
from search.compress.recipe import CompressionRecipe
from search.compress.stages import apply_stage
from search.compress.vocabulary import fallen_share, with_words
from search.costs import size_bytes
from search.errors import InvalidInput
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.evaluate import predict
from search.training.teacher import LiveTeacher, teacher_of
from tests.search.compress.vocabularies import (
    HELD_OUT,
    KINDS,
    TRAIN,
    reader,
    rows_of,
    size_of,
    spec_of,
)
from tests.search.families import SHAPES, network_of

TRIM = TrimVocabularyConfig()


def shape_for(spec: dict[str, Any], family: str = "bert") -> ModelShape:
    size, shape = size_of(spec), SHAPES[family]
    says_words = shape.task == "language-modelling"
    return replace(shape, vocab_size=size, num_labels=size if says_words else shape.num_labels)


def task_of(spec: dict[str, Any], network: Compressed) -> TaskData:
    train, validation = rows_of(spec, TRAIN), rows_of(spec, HELD_OUT)
    if network.model.shape.task == "language-modelling":
        train, validation = as_blocks(train), as_blocks(validation)
    return TaskData(train, validation, teacher_of(network.model, train), batch_size=2)


def as_blocks(rows: TokenRows) -> TokenRows:
    """Labels are the tokens that follow, the first one after the last."""
    parts = [part.roll(-1) for part in rows.tokens.long().split(rows.lengths.tolist())]
    return replace(rows, labels=torch.cat(parts), has_token_labels=True)


def prepared(kind: str = "wordpiece", family: str = "bert") -> tuple[Compressed, StageData]:
    spec = spec_of(kind)
    network = Compressed.whole(network_of(shape_for(spec, family)))
    return network, StageData(task=task_of(spec, network), seq_len=8, tokenizer=spec)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_answers_to_texts_whose_tokens_all_stay_are_the_same(kind: str, family: str) -> None:
    before, data = prepared(kind, family)
    after = apply_stage(before, TRIM, data)
    assert after.kept_tokens is not None
    smaller = trimmed_tokenizer(spec_of(kind), after.kept_tokens.tolist())
    assert reader(smaller).get_vocab_size() == after.model.shape.vocab_size
    texts = (*TRAIN, "a dog and the cat", "cats ran after the mat")
    rows, reread = rows_of(spec_of(kind), texts), rows_of(smaller, texts)
    assert bool(torch.isin(rows.tokens, after.kept_tokens).all())
    assert not torch.equal(rows.tokens, reread.tokens), "words have other ids"
    if before.model.shape.answers_per_token:
        rows, reread = as_blocks(rows), as_blocks(reread)
    expected, found = predict(before.model, rows), predict(after.model, reread)
    if before.model.shape.answers_per_token:
        expected = expected[:, after.kept_tokens]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("family", "tables"), [("bert", 1), ("gpt2", 1), ("llama", 2)])
def test_the_word_table_and_a_head_of_words_shrink_and_so_does_what_they_cost(
    family: str, tables: int
) -> None:
    before, data = prepared(family=family)
    after = apply_stage(before, TRIM, data)
    shape = after.model.shape
    gone = before.model.shape.vocab_size - shape.vocab_size
    assert gone > 0
    assert before.num_params - after.num_params == tables * gone * shape.embed_dim
    assert after.num_params == sum(p.numel() for p in after.model.parameters())
    assert after.size_bytes == size_bytes(shape, after.subnet) < before.size_bytes
    assert before.kept_tokens is None


def test_a_piece_has_to_occur_often_enough_in_rows_and_texts_together() -> None:
    before, data = prepared()
    spec = spec_of("wordpiece")
    mat, singing = (reader(spec).token_to_id(word) for word in ("mat", "singing"))

    def kept_with(min_count: int, *texts: str) -> list[int]:
        config = TrimVocabularyConfig(min_count=min_count)
        found = apply_stage(before, config, replace(data, texts=texts)).kept_tokens
        assert found is not None
        return found.tolist()  # type: ignore[no-any-return]

    counts = rows_of(spec, TRAIN).tokens.bincount()
    assert mat in kept_with(int(counts[mat]))
    assert mat not in kept_with(int(counts[mat]) + 1)
    assert mat in kept_with(int(counts[mat]) + 1, "mat")
    assert singing not in kept_with(1)
    assert singing in kept_with(1, "singing")


def test_what_a_language_model_is_asked_for_stays_in_its_vocabulary() -> None:
    before, data = prepared(family="gpt2")
    train = data.task.train
    assert isinstance(train, TokenRows)
    singing = reader(spec_of("wordpiece")).token_to_id("singing")
    asked = replace(train, labels=torch.full_like(train.labels, singing))
    after = apply_stage(before, TRIM, replace(data, task=replace(data.task, train=asked)))
    assert after.kept_tokens is not None
    assert singing in after.kept_tokens


def test_a_recipe_trims_prunes_and_teaches_and_reports_what_fell_away(tmp_path: Path) -> None:
    before, data = prepared()
    stages = (
        TRIM,
        DistillConfig(epochs=4),
        PruneConfig(keep=0.6),
        TrimVocabularyConfig(min_count=2),
        QuantizeConfig(format="int4"),
    )
    recipe, target = CompressionRecipe(stages=stages), CompressionTarget(cost="size_bytes")

    def run() -> tuple[Compressed, list[dict[str, Any]]]:
        found, reports = before, []
        for step in run_recipe(before, recipe, data, target, checkpoints=tmp_path):
            found = step[0]
            reports.append(step[1].to_dict())
        return found, reports

    found, reports = run()
    assert found.kept_tokens is not None
    assert reports[0]["before"]["fallen_share"] == 0
    assert reports[0]["after"]["fallen_share"] > 0
    assert [report["is_kept"] for report in reports][::2] == [True, True, True]
    assert reports[3]["after"]["fallen_share"] > reports[3]["before"]["fallen_share"]
    assert reports[3]["after"]["fallen_share"] == fallen_share(
        data.task.validation, found.kept_tokens
    )
    assert found.model.shape.vocab_size == len(found.kept_tokens)
    again, repeated = run()
    assert repeated == reports
    assert torch.equal(again.kept_tokens, found.kept_tokens)  # type: ignore[arg-type]


def test_trimming_twice_keeps_ids_of_the_original() -> None:
    before, data = prepared()
    strict = TrimVocabularyConfig(min_count=3)
    once = apply_stage(before, strict, data)
    twice = apply_stage(apply_stage(before, TRIM, data), strict, data)
    assert once.kept_tokens is not None
    assert twice.kept_tokens is not None
    assert torch.equal(once.kept_tokens, twice.kept_tokens)
    for one, other in zip(once.model.parameters(), twice.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_live", [False, True])
def test_a_network_learns_from_its_teacher_after_losing_words_that_the_teacher_reads(
    is_live: bool,
) -> None:
    before, data = prepared()
    if is_live:
        live = LiveTeacher(before.model)
        data = replace(data, task=replace(data.task, target_of=live))
    trimmed = apply_stage(before, TrimVocabularyConfig(min_count=4), data)
    assert fallen_share(data.task.train, trimmed.kept_tokens) > 0.1  # type: ignore[arg-type]
    taught = apply_stage(trimmed, DistillConfig(epochs=60, learning_rate=3e-3, hard=0), data)
    expected = predict(before.model, data.task.train)

    def error(network: Compressed) -> float:
        rows = data.read_by(network).task.train
        return float((predict(network.model, rows) - expected).abs().mean())

    assert error(taught) < 0.5 * error(trimmed)


def test_a_checkpoint_holds_the_ids_that_were_kept(tmp_path: Path) -> None:
    before, data = prepared(family="llama")
    after = apply_stage(before, TRIM, data)
    save_compressed(after, tmp_path / "network.safetensors")
    found = load_compressed(tmp_path / "network.safetensors")
    assert found.kept_tokens is not None
    assert after.kept_tokens is not None
    assert torch.equal(found.kept_tokens, after.kept_tokens)
    assert found.model.shape == after.model.shape
    for one, other in zip(found.model.parameters(), after.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_exported_file_is_as_small_and_answers_alike(
    family: str, precision: str, tmp_path: Path
) -> None:
    before, data = prepared(family=family)
    after = apply_stage(before, TRIM, data)
    files = {}
    for name, network in (("before", before), ("after", after)):
        subnet = network.subnet.with_precision(precision)
        files[name] = export_onnx(network.model, subnet, tmp_path / f"{name}.onnx")
    rows = data.read_by(after).task.validation
    expected = predict(after.model, rows, after.subnet.with_precision(precision))
    if precision == "fp32":
        parity = check_parity(
            files["after"], rows, expected, after.model.shape, precision=precision
        )
        assert parity.max_error < 1e-4
    saved = files["before"].stat().st_size - files["after"].stat().st_size
    gone = before.model.shape.vocab_size - after.model.shape.vocab_size
    tables = {"bert": 1, "gpt2": 1 + (precision == "int8"), "llama": 2}[family]
    bytes_each = 4 if precision == "fp32" else 1
    assert saved >= tables * gone * after.model.shape.embed_dim * bytes_each


def test_words_are_chosen_in_the_mode_that_the_model_is_in() -> None:
    before, _ = prepared()
    assert not with_words(before.model.eval(), torch.arange(5)).training
    assert with_words(before.model.train(), torch.arange(5)).training


def test_what_cannot_be_trimmed_is_refused() -> None:
    network, data = prepared()
    with pytest.raises(InvalidInput, match="needs the tokenizer"):
        apply_stage(network, TRIM, replace(data, tokenizer=None))
    trimmed = apply_stage(network, TRIM, data)
    with pytest.raises(InvalidInput, match="for a vocabulary that was trimmed"):
        replace(data, tokenizer=None).read_by(trimmed)
    images = Compressed.whole(network_of(SHAPES["vit"]))
    with pytest.raises(InvalidInput, match="reads images"):
        apply_stage(images, TRIM, data)
    network, data = prepared(family="gpt2")
    with pytest.raises(InvalidInput, match="must be 1 for a language model"):
        apply_stage(network, TrimVocabularyConfig(min_count=2), data)
