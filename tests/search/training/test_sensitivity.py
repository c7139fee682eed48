from __future__ import annotations

import pytest

from search.space import SubnetConfig
from search.training.sensitivity import by_harm, choose_float_layers, harms, rungs
from tests.search.compress.data import ordered, spoilt, teacher

INT8 = SubnetConfig.full(teacher().shape, "int8")


def test_the_layer_that_loses_most_by_int8_is_found() -> None:
    rows = ordered(64)
    for layer in range(3):
        model = spoilt(layer)
        assert by_harm(model, INT8, rows)[0] == layer
        found = harms(model, INT8, rows)
        assert found[layer] > 5 * max(v for other, v in found.items() if other != layer)


def test_as_few_layers_stay_in_fp32_as_the_agreement_asks_for() -> None:
    rows = ordered(128)
    none = choose_float_layers(teacher(), INT8, rows, most=2, min_agreement=0.99)
    assert none.layers == ()
    model = spoilt(1)
    hurt = choose_float_layers(model, INT8, rows, most=0, min_agreement=0.99)
    assert hurt.agreement < 0.99
    one = choose_float_layers(model, INT8, rows, most=2, min_agreement=0.99)
    assert one.layers == (1,)
    assert one.agreement >= 0.99
    # Layer 2 is spoilt as well, but its harm alone may be borne.
    fewest = choose_float_layers(spoilt(0, 2), INT8, rows, most=2, min_agreement=0.99)
    assert fewest.layers == (0,)
    two = choose_float_layers(spoilt(0, 1), INT8, rows, most=2, min_agreement=0.99)
    assert two.layers == (0, 1)


def test_where_no_number_of_layers_helps_the_most_there_may_be_stay() -> None:
    found = choose_float_layers(spoilt(0, 1, 2), INT8, ordered(64), most=9, min_agreement=1.0)
    assert len(found.layers) <= 2


@pytest.mark.parametrize(
    ("num_layers", "counts"),
    [(1, (0,)), (2, (0, 1)), (3, (0, 1)), (6, (0, 1, 3)), (12, (0, 1, 6))],
)
def test_no_rung_keeps_every_layer(num_layers: int, counts: tuple[int, ...]) -> None:
    assert rungs(num_layers) == counts
