"""Recipes that a job's model or runtime cannot take are refused when they are submitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.compress.recipe import CompressionRecipe
from search.compress.suitability import check_recipe_suits, check_stored
from search.errors import InvalidInput
from search.shape import ModelShape
from service.client import Client, Rejected
from service.settings import Settings
from tests.search.families import SHAPES
from tests.service.serving import sdk, serving, upload_both


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with serving(settings) as http, sdk(http) as found:
        yield found


@pytest.mark.parametrize(
    ("compress", "field", "reason"),
    [
        ([{"kind": "melt"}], "compress.stages[0].kind", "'melt' is not one of"),
        (
            {"version": 1, "stages": [{"kind": "prune"}, {"kind": "sparsify", "sparsity": 1.5}]},
            "compress.stages[1].sparsity",
            "between 0 and 1",
        ),
        ([{"kind": "quantize"}, {"kind": "prune"}], "compress.stages[1]", "cannot follow"),
        (
            [{"kind": "distill"}, {"kind": "quantize", "format": "binary"}],
            "compress.stages[1].format",
            "targets[0] runs in onnxruntime, which has no file of binary weights here; it has "
            "fp16, fp32, int4, int8",
        ),
        (
            [{"kind": "factorize"}, {"kind": "factorize"}],
            "compress.stages[1]",
            "lower rank already",
        ),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_over_http(
    client: Client, compress: Any, field: str, reason: str, tmp_path: Path
) -> None:
    spec = {**upload_both(client, tmp_path), "compress": compress}
    with pytest.raises(Rejected) as refused:
        client.submit(spec)
    (error,) = refused.value.problem.errors
    assert error.field == field
    assert reason in error.reason
    assert client.jobs() == []


def test_a_recipe_that_works_is_taken_and_kept_with_the_job(
    client: Client, tmp_path: Path
) -> None:
    stages = [{"kind": "trim-vocabulary"}, {"kind": "quantize", "format": "fp16"}]
    job = client.submit({**upload_both(client, tmp_path), "compress": stages})
    assert [stage["kind"] for stage in job.spec["compress"]["stages"]] == [
        "trim-vocabulary",
        "quantize",
    ]
    assert job.spec["compress"]["stages"][0]["min_count"] == 1


def suits(shape: ModelShape, *stages: dict[str, Any]) -> None:
    check_recipe_suits(CompressionRecipe.from_dict({"stages": list(stages)}).stages, shape)


def test_images_have_no_vocabulary_and_tied_heads_no_narrow_table() -> None:
    for kind in ("trim-vocabulary", "factorize"):
        with pytest.raises(InvalidInput, match="reads images") as caught:
            suits(SHAPES["vit"], {"kind": "prune"}, {"kind": kind})
        assert caught.value.field == "stages[1]"
    with pytest.raises(InvalidInput, match="the head too"):
        suits(SHAPES["gpt2"], {"kind": "factorize"})
    with pytest.raises(InvalidInput, match="must be 1 for a language model") as caught:
        suits(SHAPES["gpt2"], {"kind": "trim-vocabulary", "min_count": 2})
    assert caught.value.field == "stages[0].min_count"
    suits(SHAPES["bert"], {"kind": "trim-vocabulary"}, {"kind": "factorize"})


def test_not_every_network_has_a_form_in_whole_numbers() -> None:
    whole = {"kind": "quantize", "format": "int8-integer"}
    for name in ("bert", "gpt2", "vit"):
        suits(SHAPES[name], whole)
    with pytest.raises(InvalidInput, match="RMS norms, silu, rotary") as caught:
        suits(SHAPES["llama"], whole)
    assert caught.value.field == "stages[0].format"


def test_layers_are_made_lighter_once_and_in_models_that_can_be() -> None:
    for kind, match in (
        ("factorize-ffn", "of a lower rank already"),
        ("linearize-attention", "linear already"),
    ):
        with pytest.raises(InvalidInput, match=match) as caught:
            suits(SHAPES["bert"], {"kind": kind}, {"kind": "distill"}, {"kind": kind})
        assert caught.value.field == "stages[2]"
    with pytest.raises(InvalidInput, match="this model is causal"):
        suits(SHAPES["gpt2"], {"kind": "linearize-attention"})
    with pytest.raises(InvalidInput, match="no scores of pairs") as caught:
        suits(
            SHAPES["bert"], {"kind": "linearize-attention"}, {"kind": "distill", "attention": 1.0}
        )
    assert caught.value.field == "stages[1].attention"
    with pytest.raises(InvalidInput, match="2 to the 3 layers") as caught:
        suits(SHAPES["bert"], {"kind": "share-layers", "group": 4})
    assert caught.value.field == "stages[0].group"
    for kind in ("factorize-ffn", "linearize-attention", "share-layers"):
        suits(SHAPES["vit"], {"kind": kind})


def test_a_runtime_is_told_with_what_it_has() -> None:
    recipe = CompressionRecipe.from_dict({"stages": [{"kind": "quantize", "format": "int8"}]})
    check_stored(recipe.stages, {"onnxruntime": ("fp32", "int8")}, "it")
    with pytest.raises(InvalidInput, match=r"openvino, which has no .* int8 .*fp32, int4$"):
        check_stored(recipe.stages, {"openvino": ("fp32",)}, "it")


def test_a_student_is_no_larger_than_the_model_and_a_layer_is_one_that_it_has() -> None:
    relations = {"kind": "distill-relations"}
    suits(SHAPES["bert"], {**relations, "num_layers": 2, "teacher_layer": 3})
    for settings, field, match in (
        ({"num_layers": 9}, "num_layers", "at most 3, the model's"),
        ({"num_layers": 1, "teacher_layer": 9}, "teacher_layer", "at most 3"),
    ):
        with pytest.raises(InvalidInput, match=match) as caught:
            suits(SHAPES["bert"], {**relations, **settings})
        assert caught.value.field == f"stages[0].{field}"
    vectors = replace(SHAPES["bert"], task="sentence-embedding", num_labels=0)
    with pytest.raises(InvalidInput, match="keeps the width of its vectors"):
        suits(vectors, {**relations, "embed_dim": 16})
