from __future__ import annotations

import pytest
import torch

from search.compress.configs import PruneConfig
from search.compress.prune import IMPORTANCES, cheapest_sizes, prune
from search.model.reorder import Importance
from search.space import SubnetConfig
from search.training.evaluate import evaluate, predict
from tests.search.compress.data import SEQ_LEN, network, ordered, stage_data, teacher
from tests.search.small import SHAPE

FULL = SubnetConfig.full(SHAPE)


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_what_is_kept_costs_what_was_asked_for_and_is_a_subnet_again(importance: str) -> None:
    before = network()
    after = prune(before, PruneConfig(keep=0.6, importance=importance), stage_data())
    share = after.flops(SEQ_LEN) / before.flops(SEQ_LEN)
    assert 0.5 < share <= 0.6
    assert after.model.sizes == after.subnet.renumbered()
    assert after.num_params == sum(p.numel() for p in after.model.parameters())
    assert all(width % 8 == 0 for width in after.subnet.ffn_dim)


def test_keeping_everything_changes_no_answer() -> None:
    after = prune(network(), PruneConfig(keep=1.0), stage_data())
    rows = ordered(40)
    torch.testing.assert_close(
        predict(after.model, rows), predict(teacher(), rows), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_units_that_do_nothing_go_first(importance: str) -> None:
    before = network()
    layer = before.model.get_submodule("layers.1")
    dead = torch.arange(0, 64, 2)
    with torch.no_grad():
        layer.ffn.up.weight[dead] = 0  # type: ignore[union-attr,operator,index]
        layer.ffn.up.bias[dead] = 0  # type: ignore[union-attr,operator,index]
        layer.ffn.down.weight[:, dead] = 0  # type: ignore[union-attr,operator,index]
    rows = ordered(40)
    expected = predict(before.model, rows)
    saved = 32 * 2 * 32 * 2 * SEQ_LEN  # FLOPs of 32 neurons that read and write 32 features
    keep = 1 - saved / before.flops(SEQ_LEN) + 1e-6
    after = prune(before, PruneConfig(keep=keep, importance=importance), stage_data())
    assert after.subnet.ffn_dim == (64, 32, 64)
    torch.testing.assert_close(predict(after.model, rows), expected, atol=1e-4, rtol=1e-4)


def test_layers_and_features_may_be_asked_for() -> None:
    config = PruneConfig(keep=1.0, num_layers=2, embed_dim=16)
    after = prune(network(), config, stage_data())
    assert after.subnet.num_layers == 2
    assert set(after.subnet.layers) < {0, 1, 2}
    assert after.subnet.embed_dim == after.model.sizes.embed_dim == 16
    evaluate(after.model, ordered(8))


def test_a_unit_is_worth_its_importance_for_what_it_costs() -> None:
    importance = Importance(
        heads=(torch.tensor([4.0, 3, 2, 1]),) * 3,
        neurons=(torch.full((64,), 9.0), torch.full((64,), 1e-3), torch.full((64,), 9.0)),
        features=torch.ones(32),
    )
    sizes = cheapest_sizes(SHAPE, FULL, importance, 0.8 * 10**9, SEQ_LEN)
    assert sizes == FULL, "cheap enough as it is"
    wanted = 0.9 * network().flops(SEQ_LEN)
    sizes = cheapest_sizes(SHAPE, FULL, importance, wanted, SEQ_LEN)
    assert sizes.num_heads == FULL.num_heads
    assert sizes.ffn_dim[0] == sizes.ffn_dim[2] == 64
    assert sizes.ffn_dim[1] < 64


def test_a_head_and_some_neurons_of_every_layer_stay_whatever_is_asked_for() -> None:
    after = prune(network(), PruneConfig(keep=0.001), stage_data())
    assert after.subnet.num_heads == (1, 1, 1)
    assert after.subnet.ffn_dim == (8, 8, 8)
