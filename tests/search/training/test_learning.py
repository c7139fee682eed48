"""Evaluation, the teacher's outputs, the sandwich, and a distillation that learns."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from search.compress.distill import Distillation, TaskData
from search.model.extract import extract
from search.training.evaluate import evaluate
from search.training.loop import TrainingRun
from search.training.losses import DistillationLoss
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.teacher import TeacherOutputs
from tests.search.small import MIXED, SHAPE, network, task

ALL_LAYERS = tuple(range(SHAPE.num_layers))


def test_kept_outputs_are_those_of_the_teacher() -> None:
    teacher, rows = network(), task(40)
    kept = TeacherOutputs(teacher, rows, ALL_LAYERS)
    places = [3, 31, 7]
    given = rows.batch(places)
    with torch.no_grad():
        asked = teacher(given)
    answered = kept(places, given)
    torch.testing.assert_close(answered.logits, asked.logits, atol=1e-4, rtol=1e-4)
    real = given.attention_mask.bool()
    for layer in ALL_LAYERS:
        torch.testing.assert_close(
            answered.hidden[layer + 1][real], asked.hidden[layer + 1][real], atol=0.02, rtol=0.01
        )


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it() -> None:
    teacher, rows = network(), task(8)
    given = rows.batch(range(8))
    output = teacher(given)
    loss = DistillationLoss.for_shape(SHAPE, hard=0.0)(
        output, teacher.sizes, output, given, rows.labels
    )
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_distillation_teaches_a_student_what_its_teacher_knows(precision: str) -> None:
    rows, unseen = task(160), task(80, seed=1)
    teacher = network()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.3)
    order = BatchOrder(rows, 32, 0)
    run = TrainingRun(teacher, Schedule(learning_rate=1e-2, total_steps=60), seed=0)
    run.advance(finetuning_losses(teacher, order), should_stop=lambda: False)
    assert evaluate(teacher, unseen).value > 0.9

    subnet = MIXED.with_precision(precision)
    student = extract(teacher, subnet)
    data = TaskData(rows, unseen, TeacherOutputs(teacher, rows, ALL_LAYERS), 32)
    distillation = Distillation(
        student, subnet, data, total_steps=60, learning_rate=1e-2, seed=0, precision="fp32"
    )
    before = distillation.quality()
    ticks = count(1)
    first = distillation.run.advance(distillation.losses_at, should_stop=lambda: next(ticks) >= 5)
    rest = distillation.run.advance(distillation.losses_at, should_stop=lambda: False)
    assert rest < first
    assert distillation.quality().loss < before.loss
    assert distillation.quality().value > 0.85
