from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from search.errors import InvalidInput
from service.client import Client
from service.client.calls import get
from service.jobs.jobfile import load_job_file, parse_job
from service.schemas import JobState
from service.settings import Settings
from service.uploads.upload_schemas import Upload
from tests.search.data.encoded import NAMES, images_in, write_listing
from tests.search.model.folders import write_model, write_vision_model
from tests.service.hub import COMMIT, running_hub
from tests.service.serving import sdk, serving, write_data

JOB = """\
name: reviews
model: {path: model}
data: {path: data.csv}
targets:
  - {budget_ratio: 0.25, workload: {seq_len: 16}}
training: {max_seq_len: 16}
"""


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(path: Path, field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_job_file(path)
    assert caught.value.field == field
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_local_paths_are_uploaded_from_the_files_folder(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    write_model(tmp_path / "jobs" / "model")
    write_data(tmp_path / "jobs" / "data.csv")
    job_file = load_job_file(write(tmp_path / "jobs", JOB))
    monkeypatch.chdir("/")
    said: list[str] = []
    spec = job_file.resolve(client, said.append)
    assert spec.model.upload.startswith("up_")
    assert spec.data.upload.startswith("up_")
    assert said == ["uploading the model from model", "uploading the data from data.csv"]
    assert client.submit(spec).state is JobState.QUEUED


def test_columns_of_the_file_reach_the_check_of_the_data(client: Client, tmp_path: Path) -> None:
    write_data(tmp_path / "data.csv", header="review,stars")
    content = {
        "model": {"upload": "up_m"},
        "data": {"path": "data.csv", "text": "review", "label": "stars"},
        "targets": [{"budget_ms": 1}],
    }
    spec = parse_job(content, tmp_path).resolve(client)
    assert spec.model.upload == "up_m"
    assert (spec.data.text, spec.data.label) == ("review", "stars")


TAUGHT = (
    JOB
    + """\
compress:
  - {kind: distill-relations, num_layers: 1}
  - {kind: distill, teacher: large, soft: 0, attention: 1}
teachers: {large: {path: large}}
unlabelled: {path: more.csv, text: body}
"""
)


def test_teachers_and_rows_without_labels_are_uploaded_too(client: Client, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_model(tmp_path / "large")
    write_data(tmp_path / "data.csv")
    (tmp_path / "more.csv").write_text("body\none\nanother\n")
    said: list[str] = []
    spec = load_job_file(write(tmp_path, TAUGHT)).resolve(client, said.append)
    assert said[2:] == [
        "uploading the teacher large from large",
        "uploading the rows without labels from more.csv",
    ]
    job = client.submit(spec)
    assert job.spec["teachers"] == {"large": {"upload": spec.teachers["large"].upload}}
    assert job.spec["unlabelled"]["text"] == "body"


def test_what_is_wrong_with_sources_is_named(client: Client, tmp_path: Path) -> None:
    for change, field, reason in (
        (("{large: {path: large}}", "large"), "teachers", "must hold names"),
        (("{large: {path: large}}", "{large: large}"), "teachers.large", "dictionary"),
        (("{large: {path: large}}", "{larger: {path: large}}"), "compress.stages[1].teacher", ""),
        (("text: body", "label: body"), "unlabelled.label", "unknown key"),
        (("path: more.csv", "place: more.csv"), "unlabelled.place", "unknown key"),
    ):
        refused(write(tmp_path, TAUGHT.replace(*change)), field, reason)
    write_model(tmp_path / "model")
    write_data(tmp_path / "data.csv")
    job_file = load_job_file(write(tmp_path, TAUGHT))
    with pytest.raises(InvalidInput, match=r"teachers.large.path: .* is not a folder"):
        job_file.resolve(client)
    write_model(tmp_path / "large")
    with pytest.raises(InvalidInput, match=r"unlabelled.path: .* is not a file"):
        job_file.resolve(client)


def test_json_is_read_too(tmp_path: Path) -> None:
    content = {
        "model": {"upload": "m"},
        "data": {"upload": "d"},
        "targets": [{"budget_ms": 1}],
    }
    path = write(tmp_path, json.dumps(content), "job.json")
    assert load_job_file(path).spec.data.upload == "d"


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (("name:", "nmae:"), "nmae", "did you mean name?"),
        (("max_seq_len", "max_len"), "training.max_len", "unknown key"),
        (("path: model", "folder: model"), "model.folder", "unknown key"),
        (("path: model", "path: model, upload: x"), "model.path", "exactly one"),
        (("{path: data.csv}", "data.csv"), "data", "dictionary"),
        (("budget_ratio: 0.25", "budget_ms: .nan"), "targets[0].budget_ms", "finite"),
        (("budget_ratio: 0.25", "budget_ms: 0"), "targets[0].budget_ms", "greater than 0"),
        (("model: {path: model}\n", ""), "model", "is missing"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(
    tmp_path: Path, change: tuple[str, str], field: str, reason: str
) -> None:
    assert change[0] in JOB
    path = write(tmp_path, JOB.replace(*change))
    refused(path, field, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("1: 2", "must hold keys and values"),
        ("!!python/object/apply:os.abort []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    refused(path, str(path), reason)


def test_a_missing_file_and_missing_sources_are_named(client: Client, tmp_path: Path) -> None:
    refused(tmp_path / "none.yaml", str(tmp_path / "none.yaml"), "No such file")
    job_file = load_job_file(write(tmp_path, JOB))
    with pytest.raises(InvalidInput, match=r"model.path: .* is not a folder"):
        job_file.resolve(client)
    write_model(tmp_path / "model")
    with pytest.raises(InvalidInput, match=r"data.path: .* is not a file"):
        job_file.resolve(client)


def test_the_recipes_of_the_documentation_and_the_example_are_job_files() -> None:
    root = Path(__file__).parents[3]
    blocks = (root / "docs/compression.md").read_text().split("```yaml\n")[1:]
    written, sources = (block.split("```")[0] for block in blocks)
    job = yaml.safe_load(written)
    documented = parse_job(job, root).spec.compress
    assert [stage["kind"] for stage in documented.stages] == [
        "trim-vocabulary",
        "prune-and-distill",
        "quantize",
    ]
    taught = parse_job(job | yaml.safe_load(sources), root)
    assert [stage["kind"] for stage in taught.spec.compress.stages] == [
        "distill-relations",
        "distill",
    ]
    assert taught.teachers["large"].path == "./large-model"
    example = yaml.safe_load((root / "examples/movie_reviews/job-recipe.yaml").read_text())
    example |= {"model": {"path": "."}, "data": {"path": "."}}
    assert len(parse_job(example, root).spec.compress.stages) == 4


def test_images_that_a_file_lists_are_uploaded_with_it(client: Client, tmp_path: Path) -> None:
    write_vision_model(tmp_path / "model")
    lines = [{"file": name, "kind": NAMES[i]} for i, name in enumerate(images_in())]
    write_listing(tmp_path, images_in(), lines)
    job = f"{JOB}task: image-classification\n".replace("seq_len: 16", "seq_len: 5").replace(
        "{path: data.csv}", "{path: data.jsonl, image: file, label: kind}"
    )
    spec = load_job_file(write(tmp_path, job)).resolve(client)
    data = client.send(get(Upload, f"/v1/uploads/{spec.data.upload}"))
    assert len(data.files) == 41
    assert (data.summary or {})["rows_by_label"] == {"cat": 20, "dog": 20}
    (tmp_path / "images" / "003.png").unlink()
    with pytest.raises(InvalidInput, match=r"data\.image: data\.jsonl lists images/003\.png"):
        load_job_file(write(tmp_path, job)).resolve(client)


def test_a_model_and_data_may_be_a_hubs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "model")
    data = write_data(tmp_path / "train.csv", header="review,label").read_bytes()
    job = JOB.replace("{path: model}", "{hub: org/m, revision: v1}").replace(
        "{path: data.csv}", "{hub: org/d, file: data/train.csv, text: review}"
    )
    allowing = settings.model_copy(update={"allow_hub": True})
    said: list[str] = []
    with running_hub() as hub, serving(allowing) as http, sdk(http) as client:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.branches["v1"] = COMMIT
        hub.add("models/org/m", {path.name: path.read_bytes() for path in folder.iterdir()})
        hub.add("datasets/org/d", {"data/train.csv": data})
        spec = load_job_file(write(tmp_path, job)).resolve(client, said.append)
        assert client.submit(spec).state is JobState.QUEUED
    assert said == [
        "the server fetches the model from org/m",
        "the server fetches the data from org/d",
    ]


@pytest.mark.parametrize(
    ("model", "field", "reason"),
    [
        ("{hub: org/m, path: model}", "model.path", "exactly one of path, hub and upload"),
        ("{path: model, revision: v1}", "model.revision", "is of a hub's repository"),
        ("{hub: ../m}", "model.hub", ""),
        ("{hub: org/m, file: config.json}", "model.file", "unknown key"),
        ("{hub: org/m, revision: ../x}", "model.revision", ""),
    ],
)
def test_a_hub_is_named_in_full_and_alone(
    tmp_path: Path, model: str, field: str, reason: str
) -> None:
    refused(write(tmp_path, JOB.replace("{path: model}", model)), field, reason)
