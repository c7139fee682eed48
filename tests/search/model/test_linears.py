from __future__ import annotations

import torch

from search.model.linears import InputMoments, InputNorms, around_linears, layer_matrix_names
from search.model.transformer import Linear
from tests.search import families
from tests.search.small import MIXED, batch, network


def test_every_matrix_of_the_layers_is_passed_by_its_name_whatever_the_subnet() -> None:
    model, seen = network(), []

    def around(name: str, inner: Linear) -> Linear:
        seen.append(name)
        return inner

    with around_linears(model, around), torch.no_grad():
        model(batch())
    assert sorted(seen) == sorted(layer_matrix_names(model))
    seen.clear()
    with around_linears(model, around), torch.no_grad():
        model(batch(), MIXED)
    assert {name.split(".")[1] for name in seen} == {"0", "2"}


def test_afterwards_the_network_is_as_it_was() -> None:
    model = network()
    expected = model(batch()).logits
    with around_linears(
        model, lambda _name, _inner: lambda x, w, b: torch.zeros(*x.shape[:-1], len(w))
    ):
        assert not torch.equal(model(batch()).logits, expected)
    assert torch.equal(model(batch()).logits, expected)


def test_norms_are_of_what_each_matrix_reads() -> None:
    model = families.network_of(families.SHAPES["gpt2"])
    given = families.batch_of(model.shape)
    norms = InputNorms(model)
    with around_linears(model, norms.around), torch.no_grad():
        output = model(given)
    first = model.get_submodule("layers.0")
    read = first.attn.norm(output.hidden[0])  # type: ignore[union-attr,operator]
    expected = read.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(norms["layers.0.attn.q.weight"], expected, atol=1e-3, rtol=1e-3)


def test_moments_are_of_what_the_named_matrices_read() -> None:
    model = families.network_of(families.SHAPES["gpt2"])
    given, name = families.batch_of(model.shape), "layers.0.attn.q.weight"
    moments = InputMoments(model, [name])
    with around_linears(model, moments.around), torch.no_grad():
        output = model(given)
    read = model.get_submodule("layers.0.attn.norm")(output.hidden[0]).flatten(0, 1).double()
    torch.testing.assert_close(moments.mean(name), read.mean(0), atol=1e-4, rtol=1e-4)
    second = read.T @ read / len(read)
    torch.testing.assert_close(moments.second(name), second, atol=1e-4, rtol=1e-4)
