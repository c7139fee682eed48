from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search.errors import InvalidInput
from search.model.mixing import linear_attention
from search.model.transformer import attention_bias
from tests.search.families import LINEAR, SHAPES, batch_of, network_of


def heads(tokens: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values, (2, 3, tokens, 4)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, tokens, 4, generator=generator) for _ in range(3))


def test_a_token_s_weights_are_a_distribution_over_the_real_tokens() -> None:
    q, k, _ = heads(5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    every = torch.eye(5).expand(2, 3, 5, 5)  # values that tell the weights
    weights = linear_attention(q, k, every, attention_bias(mask, 5, is_causal=False))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    assert (weights[1, ..., 3:] == 0).all()
    assert weights.std(2).max() > 0.01, "queries differ in what they take"


def test_queries_weigh_the_means_that_features_take_of_the_values() -> None:
    q, k, v = heads(5)
    found = linear_attention(q, k, v, torch.zeros(1, 1, 1, 5))
    for token in range(5):
        shares = q[0, 0, token].softmax(0)
        means = [k[0, 0, :, n].softmax(0) @ v[0, 0] for n in range(4)]
        torch.testing.assert_close(found[0, 0, token], shares @ torch.stack(means))


@pytest.mark.parametrize("name", list(LINEAR))
@torch.no_grad()
def test_padding_and_what_it_holds_change_no_answer(name: str) -> None:
    model, batch = network_of(LINEAR[name]), batch_of(LINEAR[name])
    if model.shape.reads_images:
        assert model(batch).logits.shape == (4, 3)
        return
    expected = model(batch).logits
    other = batch._replace(inputs=torch.where(batch.attention_mask == 1, batch.inputs, 7))
    torch.testing.assert_close(model(other).logits, expected)
    shortest = int(batch.attention_mask.sum(1).argmin())
    length = int(batch.attention_mask[shortest].sum())
    alone = type(batch)(*(x[shortest : shortest + 1, :length] for x in batch[:2]))
    torch.testing.assert_close(model(alone).logits[0], expected[shortest], atol=1e-5, rtol=1e-5)


def test_it_mixes_otherwise_than_softmax_with_the_same_weights() -> None:
    softmax, linear = (network_of(shapes["bert"]) for shapes in (SHAPES, LINEAR))
    batch = batch_of(SHAPES["bert"])
    assert not torch.allclose(linear(batch).hidden[-1], softmax(batch).hidden[-1], atol=1e-3)


def test_a_causal_model_cannot_have_it() -> None:
    with pytest.raises(InvalidInput, match="softmax in a causal model"):
        replace(SHAPES["gpt2"], attention="linear")
