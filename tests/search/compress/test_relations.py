"""Learning relations from texts without labels, at another width too."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from search.compress.configs import (
    DistillConfig,
    DistillRelationsConfig,
    PruneConfig,
    TrimVocabularyConfig,
)
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData
from search.compress.relations import RelationsOfLayer
from search.compress.stages import apply_stage
from search.compress.teachers import Teacher
from search.errors import InvalidInput
from search.export.package import export_onnx
from search.export.parity import check_parity
from search.model.transformer import ElasticTransformer
from search.training.batches import TokenRows
from search.training.evaluate import evaluate, predict
from search.training.losses import relation_error
from search.training.teacher import LiveTeacher, teacher_of
from tests.search import small
from tests.search.compress.data import BATCH_SIZE, SEQ_LEN, network, ordered, stage_data, teacher
from tests.search.compress.vocabularies import HELD_OUT, TRAIN, rows_of, size_of, spec_of
from tests.search.families import SHAPES, network_of

NARROW = DistillRelationsConfig(epochs=6, learning_rate=3e-3, embed_dim=16)


def without_labels(num_rows: int = 1024, seed: int = 5) -> TokenRows:
    rows = ordered(num_rows, seed=seed)
    return replace(rows, labels=torch.zeros(len(rows), 0))


def data_with(**more: object) -> StageData:
    return replace(stage_data(), **{"unlabelled": without_labels(), **more})  # type: ignore[arg-type]


def cut_to(width: int) -> Compressed:
    """What the student starts from."""
    whole = network()
    return whole.smaller(replace(whole.subnet, embed_dim=width))


@lru_cache(maxsize=1)
def narrow_student() -> Compressed:
    return apply_stage(network(), NARROW, data_with())


def apart(
    found: ElasticTransformer,
    other: ElasticTransformer,
    layer: int = 3,
    *,
    relation_heads: int = 0,
) -> float:
    """Of the last layer's relations from the other's layer, on rows that nobody learnt from."""
    batch = ordered(64, seed=9).batch(range(64))
    with torch.no_grad():
        theirs = RelationsOfLayer(other, layer)([], batch)
        mine = found(batch)
        return float(relation_error(mine, theirs, batch, relation_heads=relation_heads))


def test_a_narrower_student_comes_to_relate_tokens_as_its_teacher_does() -> None:
    start = apart(cut_to(16).model, teacher())
    assert apart(narrow_student().model, teacher()) < 0.4 * start


def test_what_it_learnt_without_labels_makes_few_labels_worth_more() -> None:
    few = ordered(96)
    task = TaskData(few, ordered(256, seed=1), teacher_of(teacher(), few), BATCH_SIZE)
    data = StageData(task=task, seq_len=SEQ_LEN)
    config = DistillConfig(epochs=8, learning_rate=1e-3, hidden=0)
    prepared = apply_stage(narrow_student(), config, data)
    unprepared = apply_stage(cut_to(16), config, data)
    loss = evaluate(prepared.model, task.validation).loss
    assert loss < 0.8 * evaluate(unprepared.model, task.validation).loss


def test_a_student_of_another_width_is_priced_and_exported_as_a_subnet(tmp_path: Path) -> None:
    student = narrow_student()
    assert student.subnet.embed_dim == student.model.sizes.embed_dim == 16
    assert student.num_params == sum(p.numel() for p in student.model.parameters())
    assert student.flops(SEQ_LEN) < 0.6 * network().flops(SEQ_LEN)
    assert student.size_bytes == 4 * student.num_params
    path = export_onnx(student.model, student.subnet, tmp_path / "student.onnx")
    rows = ordered(20)
    expected = predict(student.model, rows)
    parity = check_parity(path, rows, expected, student.model.shape, precision="fp32")
    assert parity.max_error < 1e-4


def test_layers_go_at_even_distances_and_heads_and_neurons_in_every_layer() -> None:
    config = replace(NARROW, epochs=0.1, embed_dim=0, num_layers=2, num_heads=3, ffn_dim=24)
    student = apply_stage(network(), config, data_with())
    assert student.subnet.layers == (1, 2)
    assert student.subnet.num_heads == (3, 3)
    assert student.subnet.ffn_dim == (24, 24)
    # Of a network whose layers are narrow already, no layer becomes wider.
    pruned = apply_stage(network(), PruneConfig(keep=0.3), stage_data())
    widest = max(pruned.subnet.num_heads)
    config = replace(NARROW, epochs=0.1, num_heads=widest, ffn_dim=8)
    found = apply_stage(pruned, config, data_with()).subnet
    assert found.num_heads == pruned.subnet.num_heads
    assert set(found.ffn_dim) == {8}


def test_a_pruned_network_learns_anew_from_a_named_teacher_whose_layer_may_be_chosen() -> None:
    data = data_with(teachers={"original": Teacher(model=teacher())})
    pruned = apply_stage(network(), PruneConfig(keep=0.3), data)
    config = DistillRelationsConfig(
        epochs=6, learning_rate=3e-3, teacher="original", teacher_layer=2, relation_heads=8
    )
    student = apply_stage(pruned, config, data)
    assert student.subnet == pruned.subnet
    start = apart(pruned.model, teacher(), 2, relation_heads=8)
    assert apart(student.model, teacher(), 2, relation_heads=8) < 0.6 * start


def test_the_label_of_no_row_is_looked_at() -> None:
    config = replace(NARROW, epochs=0.2)
    rows = without_labels()
    other = replace(rows, labels=torch.arange(len(rows)) % 2)
    one = apply_stage(network(), config, data_with(unlabelled=rows))
    two = apply_stage(network(), config, data_with(unlabelled=other))
    for mine, theirs in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("is_named", [False, True])
def test_a_network_of_fewer_words_learns_from_itself_or_from_who_reads_them_all(
    is_named: bool,
) -> None:
    spec = spec_of("wordpiece")
    whole = Compressed.whole(network_of(replace(SHAPES["bert"], vocab_size=size_of(spec))).eval())
    rows = rows_of(spec, TRAIN)
    task = TaskData(rows, rows_of(spec, HELD_OUT), LiveTeacher(whole.model), batch_size=2)
    teachers = {"original": Teacher(model=whole.model, tokenizer=spec)}
    data = StageData(task=task, seq_len=12, tokenizer=spec, unlabelled=rows, teachers=teachers)
    trimmed = apply_stage(whole, TrimVocabularyConfig(min_count=3), data)
    config = DistillRelationsConfig(
        epochs=40,
        learning_rate=3e-3,
        teacher="original" if is_named else "",
        embed_dim=24,
    )
    student = apply_stage(trimmed, config, data)
    start = trimmed.smaller(replace(trimmed.subnet, embed_dim=24))
    read = data.read_by(trimmed).task.train
    batch = read.batch(range(len(read)))
    with torch.no_grad():
        theirs = trimmed.model(batch)
        before, after = (relation_error(n.model(batch), theirs, batch) for n in (start, student))
    assert float(after) < 0.7 * float(before)


@pytest.mark.parametrize(
    ("settings", "field", "match"),
    [
        ({"embed_dim": 33}, "embed_dim", "at most 32, the network's"),
        ({"num_layers": 4}, "num_layers", "at most 3"),
        ({"num_heads": 5}, "num_heads", "at most 4"),
        ({"ffn_dim": 65}, "ffn_dim", "at most 64"),
        ({"embed_dim": 16, "teacher_layer": 4}, "teacher_layer", "at most 3, the last"),
        ({"embed_dim": 16, "relation_heads": 5}, "relation_heads", "student's 32 features"),
    ],
)
def test_what_the_network_does_not_have_cannot_be_asked_for(
    settings: dict[str, int], field: str, match: str
) -> None:
    config = DistillRelationsConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=match) as caught:
        apply_stage(network(), config, data_with())
    assert caught.value.field == f"distill-relations.{field}"


def test_without_texts_there_is_nothing_to_learn_from() -> None:
    nothing = torch.zeros(0, dtype=torch.int32)
    for rows in (None, TokenRows(nothing, torch.zeros(1, dtype=torch.int64), nothing)):
        with pytest.raises(InvalidInput, match="must have rows") as caught:
            apply_stage(network(), NARROW, data_with(unlabelled=rows))
        assert caught.value.field == "data.unlabelled"


def test_an_embedding_keeps_its_width() -> None:
    shape = replace(small.SHAPE, task="sentence-embedding", num_labels=0)
    found = Compressed.whole(ElasticTransformer(shape))
    with pytest.raises(InvalidInput, match="the width of its vectors"):
        apply_stage(found, NARROW, data_with())


def test_a_teacher_that_reads_other_words_is_refused() -> None:
    other = ElasticTransformer(replace(small.SHAPE, vocab_size=61))
    data = data_with(teachers={"other": Teacher(model=other)})
    with pytest.raises(InvalidInput, match="60 words, got 61"):
        apply_stage(network(), replace(NARROW, teacher="other"), data)
