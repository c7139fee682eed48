"""Teachers and rows without labels that a job cannot learn from are refused at submission."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.export.folder import write_model as write_network
from search.model.checkpoint import TOKENIZER_FILE
from search.model.transformer import ElasticTransformer
from service.client import Client, Rejected
from tests.search.families import SHAPES
from tests.search.model.folders import TOKENIZER, write_model, write_vision_model
from tests.service.serving import upload_both

SHAPE = replace(SHAPES["bert"], vocab_size=12, num_labels=2)
LEARNS = {"kind": "distill", "teacher": "large", "attention": 0.5}
BY_STATES = {**LEARNS, "soft": 0.0}
RELATIONS = {"kind": "distill-relations", "num_layers": 1}
Write = Callable[[Path], Path]


def delivered(*labels: str, tokenizer: dict[str, Any] = TOKENIZER, **sizes: Any) -> Write:
    """A network as a job delivers it, layers of its own kind and all."""

    def write(folder: Path) -> Path:
        folder.mkdir()
        shape = replace(SHAPE, num_labels=len(labels) or 2, **sizes)
        write_network(ElasticTransformer(shape), folder, labels)
        (folder / TOKENIZER_FILE).write_text(json.dumps(tokenizer))
        return folder

    return write


def swapped() -> dict[str, Any]:
    vocab = {f"t{i}": i for i in range(12)} | {"t4": 5, "t5": 4}
    return {**TOKENIZER, "model": {"type": "WordPiece", "vocab": vocab}}


@pytest.fixture
def submit(client: Client, tmp_path: Path) -> Callable[..., Any]:
    spec = upload_both(client, tmp_path)

    def submit(*stages: dict[str, Any], **parts: Any) -> Any:
        return client.submit({**spec, "compress": list(stages), **parts})

    return submit


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(Rejected) as refused:
        call()
    (error,) = refused.value.problem.errors
    return error.field, error.reason


def teachers(client: Client, folder: Path, kind: Any = "teacher") -> dict[str, Any]:
    return {"teachers": {"large": {"upload": client.upload_folder(folder, kind=kind).id}}}


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (delivered("good", "bad"), "labels 'bad', 'good' in this order, has 'good', 'bad'"),
        (delivered("a", "b", "c"), "labels 'bad', 'good' in this order, has 'a', 'b', 'c'"),
        (delivered("bad", "good", tokenizer=swapped()), "its piece 't4' is 5 instead of 4"),
        (delivered(task="sentence-embedding"), "must do text-classification, does sentence-emb"),
        (delivered("bad", "good", attention="linear"), "has linear attention, with no scores"),
        (write_model, "has no head for this task: train one, or set soft to 0"),
    ],
    ids=["order", "labels", "words", "task", "no scores", "no head"],
)
def test_a_teacher_that_does_other_things_is_refused(
    client: Client, submit: Callable[..., Any], tmp_path: Path, write: Write, reason: str
) -> None:
    given = teachers(client, write(tmp_path / "large"))
    field, found = refusal(lambda: submit(LEARNS, **given))
    assert field == "teachers.large"
    assert reason in found
    assert client.jobs() == []


def test_a_teacher_that_reads_something_else_is_refused(
    client: Client, submit: Callable[..., Any], tmp_path: Path
) -> None:
    given = teachers(client, write_vision_model(tmp_path / "vit"), "model")
    field, found = refusal(lambda: submit(LEARNS, **given))
    assert field == "teachers.large"
    assert "a vit model does image-classification" in found
    with pytest.raises(Rejected, match="image-classification"):
        teachers(client, tmp_path / "vit")


def test_a_teacher_of_other_sizes_is_taken(
    client: Client, submit: Callable[..., Any], tmp_path: Path
) -> None:
    write = delivered("bad", "good", num_layers=5, embed_dim=48, num_heads=6)
    given = teachers(client, write(tmp_path / "large"))
    assert submit(LEARNS, **given).spec["teachers"] == given["teachers"]
    # One without a head of its own teaches by its states.
    assert submit(BY_STATES, **teachers(client, write_model(tmp_path / "plain"))).id


def test_a_layer_that_the_teacher_does_not_have_cannot_be_learnt(
    client: Client, submit: Callable[..., Any], tmp_path: Path
) -> None:
    given = teachers(client, write_model(tmp_path / "large"))
    (tmp_path / "more.csv").write_text("text\none\n")
    more = client.upload_file(tmp_path / "more.csv", kind="unlabelled")
    stage = {**RELATIONS, "teacher": "large", "teacher_layer": 3}
    parts = {**given, "unlabelled": {"upload": more.id}}
    assert refusal(lambda: submit(stage, **parts)) == (
        "compress.stages[0].teacher_layer",
        "must be at most 2, the last of 'large', got 3",
    )
    assert submit({**stage, "teacher_layer": 2}, **parts).id
    field, reason = refusal(lambda: submit({**stage, "num_layers": 3}, **parts))
    assert field == "compress.stages[0].num_layers"
    assert "at most 2, the model's" in reason


def test_uploads_of_another_kind_are_no_teachers_and_no_unlabelled_rows(
    client: Client, submit: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("text\none\n")
    more = client.upload_file(tmp_path / "more.csv", kind="unlabelled").id
    assert refusal(lambda: submit(LEARNS, teachers={"large": {"upload": more}})) == (
        "teachers.large.upload",
        "must be an upload of kind 'model' or 'teacher', is of kind 'unlabelled'",
    )
    model = client.upload_folder(write_model(tmp_path / "large")).id
    assert refusal(lambda: submit(RELATIONS, unlabelled={"upload": model})) == (
        "unlabelled.upload",
        "must be an upload of kind 'unlabelled', is of kind 'model'",
    )
    assert refusal(lambda: submit(RELATIONS, unlabelled={"upload": "up_x"})) == (
        "unlabelled.upload",
        "there is no upload 'up_x'",
    )


def test_rows_without_labels_are_checked_for_the_task_that_reads_them(
    client: Client, submit: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text('{"text": "one"}\n{"text": "one"}\n{"text": "two", "label": "x"}\n')
    upload = client.upload_file(path, kind="unlabelled")
    assert upload.summary == {
        "task": "text-classification",
        "text": "text",
        "num_rows": 2,
        "num_labels": 0,
    }
    job = {"unlabelled": {"upload": upload.id, "text": "body"}}
    field, reason = refusal(lambda: submit(RELATIONS, **job))
    assert field == "unlabelled.text"
    assert "column 'body' is missing in line 1" in reason
    path.write_text("")
    with pytest.raises(Rejected) as refused:
        client.upload_file(path, kind="unlabelled")
    assert refused.value.problem.errors[0].field == "unlabelled"
    with pytest.raises(Rejected, match=r"unlabelled\.label.*does not read it"):
        client.upload_file(path, kind="unlabelled", columns={"label": "label"})


def test_images_without_labels_have_the_size_that_the_model_reads(
    client: Client, tmp_path: Path
) -> None:
    pixels = np.zeros((60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(60) % 3)
    np.savez(tmp_path / "more.npz", images=np.zeros((5, 9, 8), dtype=np.uint8))
    task = "image-classification"
    more = client.upload_file(tmp_path / "more.npz", kind="unlabelled", task=task)
    spec = {
        "model": {"upload": client.upload_folder(write_vision_model(tmp_path / "vit")).id},
        "data": {"upload": client.upload_file(tmp_path / "data.npz", task=task).id},
        "task": task,
        "targets": [{"budget_ratio": 0.5}],
        "compress": [{"kind": "distill-relations", "embed_dim": 4}],
        "unlabelled": {"upload": more.id},
    }
    field, reason = refusal(lambda: client.submit(spec))
    assert field == "unlabelled.image"
    assert "the images are 9 x 8 with 1 channel" in reason
