from __future__ import annotations

import pytest
import torch

from search.compress.second_order import BLOCK, BlockFisher, _inverse


def test_the_inverse_is_that_of_the_damped_mean_of_outer_products() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(4, BLOCK, generator=generator) for _ in range(40)]
    inverse = _inverse(gradients)
    damping = 0.1 * float(torch.stack(gradients).square().mean())
    for block in range(4):
        rows = torch.stack([gradient[block] for gradient in gradients])
        fisher = rows.T @ rows / 40 + damping * torch.eye(BLOCK)
        torch.testing.assert_close(inverse[block] @ fisher, torch.eye(BLOCK), atol=1e-2, rtol=1e-2)


def quadratic(seed: int = 0) -> tuple[BlockFisher, torch.Tensor, torch.Tensor]:
    """A loss .5 (w - w*)' H (w - w*) of one block, at its minimum."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(BLOCK, BLOCK, generator=generator)
    hessian = root @ root.T + 0.1 * torch.eye(BLOCK)
    weight = torch.nn.Parameter(torch.randn(1, BLOCK, generator=generator))
    return BlockFisher({"w": weight}, {"w": hessian.inverse()[None]}), hessian, weight


def loss(hessian: torch.Tensor, weight: torch.Tensor, best: torch.Tensor) -> float:
    away = (weight - best).detach()
    return float(0.5 * (away @ hessian @ away.T))


def test_a_score_is_what_the_loss_rises_by_when_the_others_make_up_for_it() -> None:
    for place in (0, 7):
        fisher, hessian, weight = quadratic()
        best = weight.detach().clone()
        score = float(fisher.scores()["w"][0, place])
        mask = torch.ones(1, BLOCK) > 0
        mask[0, place] = False
        fisher.remove_({"w": mask})
        assert float(weight.detach()[0, place]) == 0
        assert loss(hessian, weight, best) == pytest.approx(score, rel=1e-2)


def test_the_weights_that_stay_move_to_where_the_loss_is_least() -> None:
    fisher, hessian, weight = quadratic(1)
    best = weight.detach().clone()
    mask = torch.arange(BLOCK)[None] % 3 > 0
    fisher.remove_({"w": mask})
    assert bool((weight.detach()[~mask] == 0).all())
    kept = mask[0]
    # The least loss under the zeros, solved directly.
    exact = torch.zeros(1, BLOCK)
    pull = hessian[kept][:, ~kept] @ best[0, ~kept]
    exact[0, kept] = best[0, kept] + torch.linalg.solve(hessian[kept][:, kept], pull)
    torch.testing.assert_close(weight.detach(), exact, atol=1e-2, rtol=1e-2)
    assert loss(hessian, weight, best) < loss(hessian, best * mask, best)
