from __future__ import annotations

import pytest
import torch

from search.costs import num_params
from search.model.extract import extract, to_arrays
from search.space import SubnetConfig
from tests.search.small import MIXED, SHAPE, SPACE, batch, network

SUBNETS = [SubnetConfig.full(SHAPE), SPACE.smallest, MIXED]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("subnet", SUBNETS, ids=lambda s: s.fingerprint)
def test_an_extracted_subnet_answers_as_its_slice_of_the_supernet(
    subnet: SubnetConfig, precision: str
) -> None:
    supernet, given = network(), batch()
    subnet = subnet.with_precision(precision)
    small = extract(supernet, subnet).eval()
    with torch.no_grad():
        expected = supernet(given, subnet)
        actual = small(given, subnet.renumbered())
    torch.testing.assert_close(actual.logits, expected.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("subnet", SUBNETS, ids=lambda s: s.fingerprint)
def test_it_has_as_many_weights_as_are_counted_on_paper(subnet: SubnetConfig) -> None:
    arrays = to_arrays(extract(network(), subnet))
    assert sum(array.size for array in arrays.values()) == num_params(SHAPE, subnet)


def test_training_the_copy_leaves_the_supernet_alone() -> None:
    supernet = network()
    before = {name: p.clone() for name, p in supernet.named_parameters()}
    small = extract(supernet, MIXED)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    for name, parameter in supernet.named_parameters():
        assert torch.equal(parameter, before[name])
