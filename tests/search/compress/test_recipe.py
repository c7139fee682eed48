from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from search.compress.configs import (
    DistillConfig,
    DistillRelationsConfig,
    PruneAndDistillConfig,
    PruneConfig,
    SparsifyConfig,
    TrimVocabularyConfig,
)
from search.compress.recipe import CompressionRecipe
from search.errors import InvalidInput

FIRST = "recipe.stages[0]"
RECIPE = CompressionRecipe(
    stages=(
        TrimVocabularyConfig(min_count=2),
        PruneConfig(keep=0.5, importance="magnitude"),
        DistillRelationsConfig(embed_dim=192, teacher="original"),
        DistillConfig(epochs=2, attention=0.5, teacher="larger"),
        SparsifyConfig(sparsity=0.9, score="second-order", epochs=1),
    )
)


def test_a_recipe_survives_json() -> None:
    read = CompressionRecipe.from_dict(json.loads(json.dumps(RECIPE.to_dict())))
    assert read == RECIPE
    assert [stage.kind for stage in read.stages] == [
        "trim-vocabulary",
        "prune",
        "distill-relations",
        "distill",
        "sparsify",
    ]


@pytest.mark.parametrize(
    ("data", "field", "match"),
    [
        ({"stages": [{"kind": "melt"}]}, "recipe.stages[0].kind", "'prune'"),
        ({"stages": [{"kind": "prune", "kept": 1}]}, "recipe.stages[0].kept", "importance"),
        ({"stages": {"kind": "prune"}}, "recipe.stages", "list"),
        ({"version": 2, "stages": []}, "recipe.version", "1 is read here"),
        ({"stages": [{"kind": "sparsify", "sparsity": 1}]}, f"{FIRST}.sparsity", "between 0"),
        ({"stages": [{"kind": "sparsify", "sparsity": 0}]}, f"{FIRST}.sparsity", "between 0"),
        ({"stages": [{"kind": "sparsify", "sparsity": "a"}]}, f"{FIRST}.sparsity", "type float"),
        ({"stages": [{"kind": "sparsify", "sparsity": True}]}, f"{FIRST}.sparsity", "type float"),
        ({"stages": [{"kind": "sparsify", "score": 1}]}, f"{FIRST}.score", "type str"),
        ({"stages": [{"kind": "prune", "num_layers": 1.5}]}, f"{FIRST}.num_layers", "type int"),
        ({"stages": [{"kind": "distill", "epochs": math.inf}]}, f"{FIRST}.epochs", "float"),
        ({"stages": [{"kind": "sparsify", "score": "movement"}]}, f"{FIRST}.epochs", "training"),
        (
            {"stages": [{"kind": "sparsify", "sparsity": 0.6, "pattern": "2:4"}]},
            f"{FIRST}.sparsity",
            "0.5 with 2:4",
        ),
        ({"stages": [{"kind": "prune", "keep": 0}]}, f"{FIRST}.keep", "above 0"),
        (
            {"stages": [{"kind": "trim-vocabulary", "min_count": 0}]},
            f"{FIRST}.min_count",
            "at least 1",
        ),
        ({"stages": [{"kind": "factorize", "rank": 0}]}, f"{FIRST}.rank", "above 0"),
        ({"stages": [{"kind": "distill", "epochs": 0}]}, f"{FIRST}.epochs", "above 0"),
        ({"stages": [{"kind": "distill", "attention": -1}]}, f"{FIRST}.attention", "at least 0"),
        (
            {"stages": [{"kind": "distill-relations"}]},
            f"{FIRST}.teacher",
            "named where the student keeps all sizes",
        ),
        (
            {"stages": [{"kind": "distill-relations", "embed_dim": -8}]},
            f"{FIRST}.embed_dim",
            "at least 0",
        ),
    ],
)
def test_what_a_recipe_cannot_be_is_named(data: dict[str, Any], field: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        CompressionRecipe.from_dict(data)
    assert caught.value.field == field


def test_stages_in_an_order_that_cannot_work_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInput, match="prune cannot follow sparsify: the zeros") as caught:
        CompressionRecipe(stages=(SparsifyConfig(), DistillConfig(), PruneConfig()))
    assert caught.value.field == "recipe.stages[2]"


def test_no_round_of_pruning_and_distilling_removes_more_than_30_percent() -> None:
    shares = (1.0, *PruneAndDistillConfig(keep=0.2).shares)
    assert shares[-1] == pytest.approx(0.2)
    assert all(b / a >= 0.7 - 1e-9 for a, b in itertools.pairwise(shares))
    assert PruneAndDistillConfig(keep=0.75).shares == (0.75,)
