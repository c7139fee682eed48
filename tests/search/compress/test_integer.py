from __future__ import annotations

import pytest
import torch

from search.compress.integer import _Integers as Integers
from search.compress.integer import _Watching as Watching
from search.compress.integer import around_parts, by_integers, peaks_of
from search.compress.network import copied
from search.errors import InvalidInput
from search.model.transformer import ElasticTransformer
from search.training.evaluate import evaluate, predict
from tests.search.compress.data import ordered, teacher
from tests.search.export.networks import ALL, subnet_of
from tests.search.export.subjects import data_of, no_rows, padded


def doubled(model: ElasticTransformer) -> ElasticTransformer:
    return copied(model).double().eval()


def test_a_trained_classifier_by_whole_numbers_loses_little() -> None:
    rows = ordered(128, seed=1)
    model = teacher()
    peaks = peaks_of(model, ordered(256))
    with by_integers(doubled(model), peaks) as whole:
        found, answers = evaluate(whole, rows).value, predict(whole, rows)
    assert found >= evaluate(model, rows).value - 0.03
    # It is another computation all the same.
    assert 1e-4 < float((answers - predict(model, rows)).abs().mean()) < 1.0


@pytest.mark.parametrize("name", ["bert", "bert/pairs", "bert/tags", "gpt2", "vit"])
def test_networks_of_uneven_layers_compute_by_whole_numbers(name: str) -> None:
    """Pre-norm and post-norm, texts and images, causal or not."""
    model = subnet_of(name, "uneven and narrow")
    rows = data_of(ALL[name], 24)
    peaks = peaks_of(model, rows)
    given = padded(model.shape)
    with torch.no_grad(), by_integers(doubled(model), peaks) as whole:
        found = whole(given).logits
        expected = model(given).logits.double()
    if model.shape.answers_per_token:
        real = given.attention_mask.bool()
        found, expected = found[real], expected[real]
    cosine = torch.nn.functional.cosine_similarity(found, expected)
    assert float(cosine.mean()) > 0.97


def test_products_are_sums_of_whole_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in ((3, 5, 48), (16, 48), (16,))
    )
    product = Integers({"m": 2.0}).linear("m", torch.nn.functional.linear)
    found = product(x, weight, bias)
    steps = 2.0 / 127 * weight.abs().amax(1) / 127
    torch.testing.assert_close(found / steps, (found / steps).round(), atol=1e-6, rtol=0)
    expected = torch.nn.functional.linear(x.clamp(-2, 2), weight, bias)
    assert 0 < float((found - expected).abs().max()) < 0.3


def test_afterwards_the_network_is_as_it_was() -> None:
    model = copied(teacher()).eval()
    rows = ordered(16)
    expected = predict(model, rows)
    peaks = peaks_of(model, rows)
    with by_integers(model.double(), peaks):
        assert not torch.equal(predict(model, rows), expected)
    assert torch.equal(predict(model.float(), rows), expected)
    watching = Watching()
    with around_parts(model, watching):
        assert torch.equal(predict(model, rows), expected)
    assert watching.peaks == dict(peaks)


def test_without_rows_nothing_is_known_of_scales() -> None:
    with pytest.raises(InvalidInput) as refused:
        peaks_of(teacher(), no_rows())
    assert refused.value.field == "calibration"
