from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from search.compress.recipe import stage_kinds
from service.jobs.job_spec import JobSpec
from service.validation import field_errors


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"upload": "up_m"},
        "data": {"upload": "up_d"},
        "targets": [{"budget_ms": 3.0}],
        **changes,
    }


def error_of(value: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(value)
    first = field_errors(caught.value.errors(), JobSpec)[0]
    return first.field, first.reason


def test_a_short_spec_is_filled_with_defaults_and_survives_json() -> None:
    job = JobSpec.model_validate(spec())
    assert job.targets[0].workload.seq_len is None
    assert job.search.sampler == "nsga2"
    assert JobSpec.model_validate_json(job.model_dump_json()) == job


def test_robustness_is_measured_unless_a_job_asks_for_no_rows() -> None:
    assert JobSpec.model_validate(spec()).robustness.rows == 200
    assert JobSpec.model_validate(spec(robustness={"rows": 0})).robustness.rows == 0
    field, reason = error_of(spec(robustness={"rows": 1001}))
    assert field == "robustness.rows"
    assert "1000" in reason


@pytest.mark.parametrize(
    ("target", "field", "reason"),
    [
        ({"budget_ms": 0}, "targets[0].budget_ms", "greater than 0"),
        ({"budget_ms": -1}, "targets[0].budget_ms", "greater than 0"),
        ({"budget_ms": float("nan")}, "targets[0].budget_ms", "finite"),
        ({"budget_ms": float("inf")}, "targets[0].budget_ms", "finite"),
        ({"budget_ratio": 1.5}, "targets[0].budget_ratio", "less than or equal to 1"),
        ({"budget_ratio": 0}, "targets[0].budget_ratio", "greater than 0"),
        ({}, "targets[0].budget_ms", "exactly one of budget_ms and budget_ratio"),
        ({"budget_ms": 1, "budget_ratio": 1}, "targets[0].budget_ms", "exactly one"),
        ({"budget_ms": 1, "statistic": "p99"}, "targets[0].statistic", "'p50' or 'p95'"),
        ({"budget_ms": 1, "min_quality": 90}, "targets[0].min_quality", "less than or equal"),
    ],
)
def test_a_wrong_target_is_named(target: dict[str, Any], field: str, reason: str) -> None:
    found = error_of(spec(targets=[target]))
    assert found[0] == field
    assert reason in found[1]


def test_an_unknown_key_names_the_one_that_was_meant() -> None:
    assert error_of(spec(seeds=1)) == ("seeds", "unknown key; did you mean seed?")
    wrong = spec(training={"epochs": 1})
    field, reason = error_of(wrong)
    assert field == "training.epochs"
    assert reason.startswith("unknown key; ")
    field, reason = error_of(spec(targets=[{"budget_ms": 1, "xyz": 1}]))
    assert field == "targets[0].xyz"
    assert "known keys: device, workload, statistic" in reason


@pytest.mark.parametrize("targets", [[], [{"budget_ms": 1}] * 9])
def test_a_job_has_one_to_eight_targets(targets: list[Any]) -> None:
    assert error_of(spec(targets=targets))[0] == "targets"


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"num_layers": []}, "space.num_layers"),
        ({"num_layers": [0, 1]}, "space.num_layers[0]"),
        ({"ffn_dim": [64, 32]}, "space.ffn_dim"),
        ({"num_heads": [2, 2]}, "space.num_heads"),
        ({"precision": ["fp8"]}, "space.precision[0]"),
        ({"precision": ["int8", "int8"]}, "space.precision"),
        ({"preset": "huge"}, "space.preset"),
    ],
)
def test_a_wrong_space_is_named(space: dict[str, Any], field: str) -> None:
    assert error_of(spec(space=space))[0] == field


def test_formats_are_asked_for_by_name_and_once_each() -> None:
    assert JobSpec.model_validate(spec()).exports == []
    job = JobSpec.model_validate(spec(exports=["openvino-int8", "pt2"]))
    assert job.exports == ["openvino-int8", "pt2"]
    assert error_of(spec(exports=["pt2", "pt2"])) == ("exports", "names a format twice")
    field, reason = error_of(spec(exports=["tflite"]))
    assert field == "exports[0]"
    assert "'openvino-int8'" in reason


def test_a_recipe_is_an_object_or_a_list_of_stages_and_gets_every_default() -> None:
    stages = [{"kind": "prune", "keep": 0.7}, {"kind": "distill"}]
    for given in (stages, {"version": 1, "stages": stages}):
        job = JobSpec.model_validate(spec(compress=given))
        assert [stage["kind"] for stage in job.compress.stages] == ["prune", "distill"]
        assert job.compress.stages[0]["importance"] == "first-order"
        assert job.compress.recipe.stages[0].to_dict() == job.compress.stages[0]
        assert JobSpec.model_validate_json(job.model_dump_json()) == job
    assert JobSpec.model_validate(spec()).compress.stages == []


RELATIONS = {"kind": "distill-relations", "num_layers": 1}


@pytest.mark.parametrize(
    ("compress", "field", "reason"),
    [
        ([{"kind": "melt"}], "compress.stages[0].kind", "'prune'"),
        ([{"kind": "prune", "kept": 1}], "compress.stages[0].kept", "importance"),
        (
            [{"kind": "prune"}, {"kind": "distill"}, {"kind": "sparsify", "sparsity": 2}],
            "compress.stages[2].sparsity",
            "between 0 and 1, got 2",
        ),
        ([{"kind": "prune", "keep": "half"}], "compress.stages[0].keep", "type float"),
        (
            [{"kind": "sparsify"}, {"kind": "prune"}],
            "compress.stages[1]",
            "prune cannot follow sparsify: the zeros were chosen",
        ),
        (
            [{"kind": "quantize"}, {"kind": "distill"}],
            "compress.stages[1]",
            "rounded weights are final",
        ),
        ({"version": 2, "stages": []}, "compress.version", "1"),
        ({"stage": []}, "compress.stage", "did you mean stages?"),
        ([3], "compress.stages[0]", "dictionary"),
        ([RELATIONS], "compress.stages[0].kind", "name a file as the job's unlabelled"),
        (
            [{"kind": "prune"}, {"kind": "distill", "teacher": "large"}],
            "compress.stages[1].teacher",
            "must be empty, or in the job's teachers, got 'large'",
        ),
        ({"stages": [], "cost": "beauty"}, "compress.cost", "'size_bytes'"),
        ([{"kind": "distill"}] * 17, "compress.stages", "16"),
    ],
)
def test_a_wrong_recipe_is_named(compress: Any, field: str, reason: str) -> None:
    found = error_of(spec(compress=compress))
    assert found[0] == field
    assert reason in found[1]


TEACHERS = {"large": {"upload": "up_t"}}
UNLABELLED = {"upload": "up_u", "text": "body"}
LEARNS = {"kind": "distill", "teacher": "large"}


def test_a_job_names_what_its_stages_learn_from() -> None:
    stages = [RELATIONS, LEARNS]
    given = spec(compress=stages, teachers=TEACHERS, unlabelled=UNLABELLED)
    job = JobSpec.model_validate(given)
    assert job.teachers["large"].upload == "up_t"
    assert job.unlabelled is not None
    assert job.unlabelled.columns == {"text": "body", "text_pair": None, "image": None}
    assert JobSpec.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("parts", "field", "reason"),
    [
        (
            {"compress": [{**LEARNS, "teacher": "larg"}], "teachers": TEACHERS},
            "compress.stages[0].teacher",
            "must be one of ['large'], got 'larg'",
        ),
        (
            {"compress": [{"kind": "distill"}], "teachers": TEACHERS},
            "teachers.large",
            "no stage of compress learns from it",
        ),
        (
            {"compress": [LEARNS], "teachers": TEACHERS, "unlabelled": UNLABELLED},
            "unlabelled",
            "no stage of compress is distill-relations",
        ),
        (
            {"compress": [RELATIONS], "unlabelled": {**UNLABELLED, "label": "stars"}},
            "unlabelled.label",
            "unknown key",
        ),
        ({"teachers": {"large": {"path": "x"}}}, "teachers.large.upload", "is missing"),
        (
            {"teachers": {f"t{i}": {"upload": "u"} for i in range(9)}},
            "teachers",
            "at most 8",
        ),
    ],
)
def test_sources_that_are_missing_or_for_nothing_are_named(
    parts: dict[str, Any], field: str, reason: str
) -> None:
    found = error_of(spec(**parts))
    assert found[0] == field
    assert reason in found[1]


def test_the_documented_schema_has_every_kind_of_stage_with_its_settings() -> None:
    schema = JobSpec.model_json_schema()["$defs"]["CompressSpec"]
    kinds = {kind["title"]: kind for kind in schema["properties"]["stages"]["items"]["oneOf"]}
    assert kinds.keys() == stage_kinds().keys()
    assert kinds["sparsify"]["properties"]["sparsity"]["default"] == 0.5
