"""Learning from the original, its attention too, and from other teachers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from search.compress.checkpoint import load_compressed, save_compressed
from search.compress.configs import DistillConfig, PruneConfig, TrimVocabularyConfig
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData, copied
from search.compress.stages import apply_stage
from search.compress.teachers import Teacher
from search.compress.training import even_layers, match_of
from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.training.evaluate import evaluate, predict
from search.training.loop import TrainingRun
from search.training.losses import attention_error
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.teacher import LiveTeacher
from tests.search import small
from tests.search.compress.data import BATCH_SIZE, network, ordered, stage_data, teacher
from tests.search.compress.vocabularies import HELD_OUT, TRAIN, rows_of, size_of, spec_of
from tests.search.families import SHAPES, network_of

RATE = 3e-3
OTHER_SHAPE = replace(small.SHAPE, num_layers=2, embed_dim=40, num_heads=5, ffn_dim=80)


@lru_cache(maxsize=1)
def other_teacher() -> ElasticTransformer:
    """Another network that has learnt the same task: of other depth, width and heads."""
    torch.manual_seed(1)
    model = ElasticTransformer(OTHER_SHAPE, dropout=0.0)
    order = BatchOrder(ordered(1024), BATCH_SIZE, 0)
    run = TrainingRun(model, Schedule(learning_rate=RATE, total_steps=400), seed=0)
    run.advance(finetuning_losses(model, order), should_stop=lambda: False)
    return model.eval()


def fresh() -> Compressed:
    torch.manual_seed(2)
    return Compressed.whole(ElasticTransformer(small.SHAPE, dropout=0.0))


def hearing_attention() -> StageData:
    data = stage_data()
    live = LiveTeacher(teacher(), attention=True)
    return replace(data, task=replace(data.task, target_of=live))


def with_teacher(given: Teacher, **more: object) -> StageData:
    return replace(stage_data(), teachers={"other": given}, **more)  # type: ignore[arg-type]


def contrary(model: ElasticTransformer) -> ElasticTransformer:
    """It says the opposite of every label: whoever learns from it does, too."""
    found = copied(model).eval()
    assert found.head is not None
    with torch.no_grad():
        found.head.weight.copy_(found.head.weight.flip(0))
        found.head.bias.copy_(found.head.bias.flip(0))
    return found


# --- attention ----------------------------------------------------------------------------------


def attention_apart(found: Compressed) -> float:
    """From the teacher's, on rows that nobody learnt from."""
    rows = ordered(64, seed=1)
    batch = rows.batch(range(64))
    with torch.no_grad():
        mine, theirs = (m(batch, with_attention=True) for m in (found.model, teacher()))
    heads = found.query_heads
    return float(attention_error(mine, found.subnet.layers, theirs, batch, heads=heads))


def test_a_pruned_network_knows_which_heads_of_the_original_it_has(tmp_path: Path) -> None:
    pruned = apply_stage(network(), PruneConfig(keep=0.6), stage_data())
    pruned = apply_stage(pruned, PruneConfig(keep=0.8, num_layers=2), stage_data())
    assert pruned.heads is not None
    assert any(layer != tuple(range(len(layer))) for layer in pruned.heads), "some were sorted"
    whole = dict(teacher().named_parameters())
    for place, layer in enumerate(pruned.subnet.layers):
        mine = pruned.model.get_parameter(f"layers.{place}.attn.q.weight").view(-1, 8, 32)
        theirs = whole[f"layers.{layer}.attn.q.weight"].view(-1, 8, 32)
        assert torch.equal(mine, theirs[list(pruned.heads[place])])
    save_compressed(pruned, tmp_path / "pruned.safetensors")
    assert load_compressed(tmp_path / "pruned.safetensors").heads == pruned.heads


def test_attention_is_learnt_head_by_head_by_a_network_that_lost_some() -> None:
    data = hearing_attention()
    pruned = apply_stage(network(), PruneConfig(keep=0.3), data)
    assert sum(pruned.subnet.num_heads) < 12
    answers = DistillConfig(epochs=2, learning_rate=RATE, hidden=0)
    without = apply_stage(pruned, answers, data)
    with_it = apply_stage(pruned, replace(answers, attention=1.0), data)
    assert attention_apart(with_it) < 0.7 * attention_apart(without)
    assert evaluate(with_it.model, data.task.validation).value > 0.9


def test_what_the_teacher_does_not_say_cannot_be_learnt() -> None:
    for part in ("attention", "relations"):
        with pytest.raises(InvalidInput, match=f"have no {part}") as caught:
            apply_stage(network(), DistillConfig(**{part: 1.0}), stage_data())  # type: ignore[arg-type]
        assert caught.value.field == f"distill.{part}"


# --- other teachers -----------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1.0, 2.0], ids=["asked anew", "answers kept"])
def test_a_named_teacher_s_answers_replace_the_original_s(epochs: float) -> None:
    data = with_teacher(Teacher(model=contrary(teacher())))
    config = DistillConfig(epochs=epochs, learning_rate=RATE, hard=0, teacher="other")
    taught = apply_stage(network(), config, data)
    assert evaluate(taught.model, data.task.validation).value < 0.3
    assert evaluate(teacher(), data.task.validation).value > 0.9, "the original was left alone"


def test_a_teacher_of_other_sizes_teaches_by_answers_states_and_relations() -> None:
    data = with_teacher(Teacher(model=other_teacher()))
    config = DistillConfig(
        epochs=8,
        learning_rate=RATE,
        hard=0,
        attention=0.5,
        relations=0.5,
        teacher="other",
    )
    taught = apply_stage(fresh(), config, data)
    expected = predict(other_teacher(), data.task.validation).softmax(-1)

    def error(found: Compressed) -> float:
        return float(
            (predict(found.model, data.task.validation).softmax(-1) - expected).abs().mean()
        )

    assert error(taught) < 0.2 * error(fresh())
    assert {name for name, _ in taught.model.named_parameters()} == {
        name for name, _ in fresh().model.named_parameters()
    }


def test_states_of_another_width_teach_through_a_learned_projection() -> None:
    data = with_teacher(Teacher(model=other_teacher()))
    few = StageData(
        task=replace(data.task, train=ordered(64)), seq_len=data.seq_len, teachers=data.teachers
    )
    answers = DistillConfig(epochs=40, learning_rate=RATE, hidden=0, teacher="other")
    with_states = apply_stage(fresh(), replace(answers, hidden=2.0), few)
    without = apply_stage(fresh(), answers, few)
    unseen = data.task.validation
    assert evaluate(with_states.model, unseen).loss < evaluate(without.model, unseen).loss


def test_layers_are_matched_at_even_distances_whatever_the_depths() -> None:
    assert even_layers(3, 3) == (0, 1, 2)
    assert even_layers(4, 12) == (2, 5, 8, 11)
    assert even_layers(2, 3) == (1, 2)
    assert even_layers(6, 2) == (0, 0, 0, 1, 1, 1)
    match = match_of(network(), Teacher(model=other_teacher()))
    assert match.layers == (0, 1, 1)
    assert match.heads is None


def test_a_teacher_reads_words_that_its_student_lost() -> None:
    spec = spec_of("wordpiece")
    shape = replace(SHAPES["bert"], vocab_size=size_of(spec))
    whole = Compressed.whole(network_of(shape).eval())
    rows = rows_of(spec, TRAIN)
    task = TaskData(rows, rows_of(spec, HELD_OUT), LiveTeacher(whole.model), batch_size=2)
    guide = Teacher(model=contrary(whole.model), tokenizer=spec)
    data = StageData(task=task, seq_len=12, tokenizer=spec, teachers={"guide": guide})
    trimmed = apply_stage(whole, TrimVocabularyConfig(min_count=3), data)
    config = DistillConfig(epochs=80, learning_rate=RATE, hard=0, teacher="guide")
    taught = apply_stage(trimmed, config, data)
    expected = predict(guide.model, rows)

    def error(found: Compressed) -> float:
        return float(
            (predict(found.model, data.read_by(found).task.train) - expected).abs().mean()
        )

    assert error(taught) < 0.7 * error(trimmed)


# --- those that cannot teach --------------------------------------------------------------------


def refusal(data: StageData, name: str = "other", **settings: float) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        apply_stage(network(), DistillConfig(teacher=name, **settings), data)  # type: ignore[arg-type]
    return caught.value


def test_a_teacher_that_nobody_gave_is_refused() -> None:
    found = refusal(with_teacher(Teacher(model=teacher())), name="who")
    assert found.field == "distill.teacher"
    assert "one of ['other'], got 'who'" in str(found)
    assert "none is given" in str(refusal(stage_data()))


def test_a_teacher_with_other_labels_is_refused() -> None:
    three = ElasticTransformer(replace(small.SHAPE, num_labels=3))
    names = ("bad", "good")
    found = refusal(with_teacher(Teacher(model=three, label_names=("a", "b", "c"))))
    assert found.field == "teachers.other"
    assert "(none named, 2 of them) in this order, has 'a', 'b', 'c'" in str(found)
    reversed_ = Teacher(model=teacher(), label_names=("good", "bad"))
    found = refusal(with_teacher(reversed_, label_names=names))
    assert "'bad', 'good' in this order, has 'good', 'bad'" in str(found)
    apply_stage(
        network(),
        DistillConfig(epochs=0.05, teacher="other"),
        with_teacher(replace(reversed_, label_names=names), label_names=names),
    )


def test_a_teacher_with_other_words_is_refused() -> None:
    more = ElasticTransformer(replace(small.SHAPE, vocab_size=61))
    assert "the network's 60 words, got 61" in str(refusal(with_teacher(Teacher(model=more))))
    spec, other = spec_of("wordpiece"), spec_of("bpe")
    data = with_teacher(Teacher(model=teacher(), tokenizer=other), tokenizer=spec)
    assert "must have the network's tokenizer" in str(refusal(data))
    vocab = dict(spec["model"]["vocab"])
    vocab["the"], vocab["cat"] = vocab["cat"], vocab["the"]
    swapped = {**spec, "model": {**spec["model"], "vocab": vocab}}
    data = with_teacher(Teacher(model=teacher(), tokenizer=swapped), tokenizer=spec)
    assert f"its piece 'the' is {vocab['the']} instead of {vocab['cat']}" in str(refusal(data))
    data = with_teacher(Teacher(model=teacher()), tokenizer=spec)
    assert "the teacher's tokenizer is needed" in str(refusal(data))


def test_how_texts_are_padded_and_cut_makes_no_other_tokenizer() -> None:
    spec = spec_of("wordpiece")
    plain = {**spec, "padding": None, "truncation": None}
    Teacher(model=teacher(), tokenizer=plain).check("other", small.SHAPE, ordered(4), spec)


def test_a_teacher_that_reads_less_than_the_rows_have_is_refused() -> None:
    short = ElasticTransformer(replace(small.SHAPE, max_seq_len=5))
    assert "reads 5 at most" in str(refusal(with_teacher(Teacher(model=short))))


def test_a_teacher_of_another_task_or_without_a_head_teaches_by_its_states_alone() -> None:
    headless = Teacher(model=teacher(), has_answers=False)
    assert "has no head for this task" in str(refusal(with_teacher(headless)))
    vectors = ElasticTransformer(replace(small.SHAPE, task="sentence-embedding", num_labels=0))
    data = with_teacher(Teacher(model=vectors))
    assert "must do text-classification, does sentence-embedding" in str(refusal(data))
    config = DistillConfig(epochs=0.05, soft=0, teacher="other")
    apply_stage(network(), config, with_teacher(headless))
    apply_stage(network(), config, data)
