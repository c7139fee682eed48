from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from search.model.extract import extract
from search.model.transformer import ElasticTransformer
from search.space import SearchSpace, SubnetConfig
from search.training.evaluate import evaluate_rows, predict
from search.training.rows import Rows
from search.training.together import divergences, evaluate_together, num_layers_run
from tests.search import families, small
from tests.search.training.test_evaluate import DECODER, HALF, VIT, image_rows, token_rows

SPACE = SearchSpace.for_shape(small.SHAPE, "wide")


def drawn(space: SearchSpace, count: int) -> list[SubnetConfig]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def family(kind: str) -> tuple[ElasticTransformer, Rows]:
    decoder = families.SHAPES["llama"]
    return {
        "text": (small.network(), small.task(30)),
        "images": (families.network_of(VIT), image_rows()),
        "language": (families.network_of(decoder), token_rows(num_labels=64, ignored=0.0)),
    }[kind]


@pytest.mark.parametrize("kind", ["text", "images", "language"])
def test_each_answers_as_it_does_by_itself(kind: str) -> None:
    model, rows = family(kind)
    subnets = drawn(SearchSpace.for_shape(model.shape, "wide"), 12)
    found = evaluate_together(model, rows, subnets)
    for subnet, scores in zip(subnets, found, strict=True):
        alone = evaluate_rows(extract(model, subnet), rows, subnet.renumbered())
        torch.testing.assert_close(scores.loss, alone.loss, atol=1e-4, rtol=1e-4)
        assert torch.equal(scores.count, alone.count)


def test_who_is_beside_a_network_changes_not_a_bit_of_its_scores() -> None:
    model, rows = small.network(), small.task(30)
    subnets = drawn(SPACE, 12)
    together = evaluate_together(model, rows, subnets)
    for subnet, scores in zip(subnets, together, strict=True):
        (alone,) = evaluate_together(model, rows, [subnet])
        assert torch.equal(scores.loss, alone.loss)


def test_a_beginning_that_several_share_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = small.network(), small.task(30)
    runs = []
    run_layer = ElasticTransformer.run_layer

    def counted(self: ElasticTransformer, place: int, *args: object) -> object:
        runs.append(place)
        return run_layer(self, place, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ElasticTransformer, "run_layer", counted)
    one = SubnetConfig(layers=(0, 1, 2), num_heads=(4, 2, 4), ffn_dim=(64, 32, 64))
    last_differs = SubnetConfig(layers=(0, 1, 2), num_heads=(4, 2, 4), ffn_dim=(64, 32, 16))
    shorter = SubnetConfig(layers=(0, 1), num_heads=(4, 2), ffn_dim=(64, 32))
    other = SubnetConfig(layers=(0, 2), num_heads=(4, 2), ffn_dim=(64, 32))
    in_int8 = shorter.with_precision("int8")
    subnets = [one, other, shorter, in_int8, last_differs]
    assert num_layers_run(subnets) == 3 + 1 + 1 + 2
    evaluate_together(model, rows, subnets)
    assert len(runs) == num_layers_run(subnets)


def test_it_may_be_stopped_between_batches() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate_together(small.network(), small.task(30), drawn(SPACE, 2), check_abort=stop)


def test_divergence_is_zero_only_from_itself() -> None:
    model, rows = small.network(), small.task(30)
    full = SubnetConfig.full(small.SHAPE)
    zero, found = divergences(model, rows, [full, small.MIXED])
    assert zero == pytest.approx(0.0, abs=1e-6)
    target, mine = predict(model, rows).softmax(-1), predict(model, rows, small.MIXED)
    expected = (target * (target.log() - mine.log_softmax(-1))).sum(-1).mean()
    assert found == pytest.approx(float(expected), abs=1e-5)
    assert found > 1e-3


def test_divergence_of_a_language_model_is_that_of_its_tokens() -> None:
    model, rows = families.network_of(DECODER), token_rows(num_labels=64)
    (found,) = divergences(model, rows, [HALF])
    target, mine = predict(model, rows).log_softmax(-1), predict(model, rows, HALF)
    expected = F.kl_div(mine.log_softmax(-1), target, log_target=True, reduction="batchmean")
    assert found == pytest.approx(float(expected), abs=1e-5)
