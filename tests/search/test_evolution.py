from __future__ import annotations

from search.evolution import EvaluatedGenotype, ask_generation, random_subnets
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig

SHAPE = ModelShape(
    family="bert",
    num_layers=4,
    embed_dim=32,
    num_heads=4,
    head_dim=8,
    ffn_dim=64,
    vocab_size=100,
    max_seq_len=64,
    num_token_types=2,
    num_labels=2,
)
SPACE = SearchSpace.for_shape(SHAPE)


def cost(subnet: SubnetConfig) -> float:
    return float(sum(4 * h * 8 + f for h, f in zip(subnet.num_heads, subnet.ffn_dim, strict=True)))


def run(generations: int, history: list[EvaluatedGenotype], limit: float = 1e9) -> None:
    """Goes on from `history` up to `generations`, as a resumed search does."""
    done = max((r.generation for r in history), default=-1) + 1
    for generation in range(done, generations):
        children = ask_generation(
            SPACE,
            history,
            generation=generation,
            population=8,
            seed=3,
            is_feasible=lambda s: cost(s) <= limit,
        )
        for child in children:
            latency_ms = cost(child.subnet) * (0.6 if child.subnet.precision == "int8" else 1.0)
            history.append(
                EvaluatedGenotype(
                    generation=generation,
                    genotype=child.genotype,
                    latency_ms=latency_ms,
                    quality=cost(child.subnet) ** 0.5 - 2 * (child.subnet.precision == "int8"),
                )
            )


def test_a_resumed_search_asks_the_same_children_at_every_kill_point() -> None:
    whole: list[EvaluatedGenotype] = []
    run(6, whole)
    for killed_after in range(1, 6):
        resumed = [r for r in whole if r.generation < killed_after]
        run(6, resumed)
        assert resumed == whole


def test_later_generations_inherit_from_the_front() -> None:
    history: list[EvaluatedGenotype] = []
    run(8, history)
    best_first = max(r.quality for r in history if r.generation == 0)
    assert max(r.quality for r in history if r.generation == 7) >= best_first
    parents = {tuple(sorted(r.genotype.items())) for r in history if r.generation < 7}
    children = [tuple(sorted(r.genotype.items())) for r in history if r.generation == 7]
    assert len(parents & set(children)) < len(children), "mutation and crossover bring new ones"


def test_every_child_is_feasible_even_when_hardly_anything_is() -> None:
    limit = cost(SPACE.smallest)
    history: list[EvaluatedGenotype] = []
    run(2, history, limit)
    assert len(history) == 16
    assert all(cost(SPACE.decode(r.genotype)) <= limit for r in history)


def test_random_subnets_are_feasible_and_repeat_with_the_seed() -> None:
    limit = 300.0

    def draw(seed: int) -> list[SubnetConfig]:
        return random_subnets(SPACE, 20, seed=seed, is_feasible=lambda s: cost(s) <= limit)

    assert all(cost(s) <= limit for s in draw(1))
    assert draw(1) == draw(1) != draw(2)
