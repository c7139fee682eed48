from __future__ import annotations

from service.steps.step_kinds import LIGHT, QUEUE_BY_KIND, QUEUES, SEARCH, TRAIN, queue_of
from workers.handlers import HANDLER_PATHS


def test_training_evaluating_and_the_rest_wait_in_queues_of_their_own() -> None:
    assert (queue_of("supernet"), queue_of("evaluate"), queue_of("report")) == QUEUES
    assert queue_of("of a later version") == LIGHT


def test_every_kind_that_is_named_exists() -> None:
    assert set(QUEUE_BY_KIND) <= set(HANDLER_PATHS)
    assert set(QUEUE_BY_KIND.values()) == {TRAIN, SEARCH}
