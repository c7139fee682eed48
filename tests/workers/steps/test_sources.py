"""Jobs whose stages learn from other teachers, and from rows without labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search.compress.checkpoint import load_compressed
from search.compress.configs import DistillRelationsConfig
from search.compress.network import Compressed
from search.compress.relations import RelationsOfLayer, student_sizes
from search.compress.teachers import read_teacher
from search.data.dataset import read_dataset
from search.data.splits import SPLITS
from search.data.texts import LabelledTexts
from search.export.folder import write_model
from search.model.checkpoint import TOKENIZER_FILE, check_model_folder
from search.model.transformer import ElasticTransformer
from search.training import teacher as teacher_module
from search.training.batches import TokenRows
from search.training.encoding import TextReader, load_rows, load_tokenizer
from search.training.loop import TrainingRun
from search.training.losses import relation_error
from search.training.optimizer import Schedule
from search.training.order import BatchOrder
from search.training.supernet import finetuning_losses
from search.training.teacher import TeacherOutputs
from service.database.models import Job, Step
from service.uploads.uploads import files_of
from tests.workers.steps import tiny_job
from tests.workers.steps.conftest import OpenWorkshop, quietly
from tests.workers.steps.in_process import Recorded, Workshop
from tests.workers.steps.test_repeat import Killer, content
from tests.workers.steps.test_tasks import BRIEF, SEARCH, images, vit

TASK = {"task": "text-classification"}
RELATIONS = {
    "kind": "distill-relations",
    "teacher": "large",
    "num_layers": 2,
    "epochs": 3,
    "learning_rate": 3e-3,
}
# The labels are not looked at: what is right, only the teacher tells.
ANSWERS = {
    "kind": "distill",
    "teacher": "large",
    "epochs": 16,
    "learning_rate": 8e-3,
    "hard": 0.0,
    "hidden": 0.0,
}


def rows_of(data: Path, folder: Path) -> TokenRows:
    shape = check_model_folder(folder, task="text-classification").shape
    texts = read_dataset(data)
    assert isinstance(texts, LabelledTexts)
    return TextReader(load_tokenizer(folder / TOKENIZER_FILE), shape, 16).read(texts)


def write_teacher(
    folder: Path, data: Path, labels: tuple[str, ...] = ("bad", "good"), **sizes: Any
) -> Path:
    """A network wider and deeper than the job's, and good at its task, as Snugnet writes it."""
    config = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, **sizes}
    plain = tiny_job.write_model(folder / "plain", seed=3, **config)
    torch.manual_seed(3)
    shape = check_model_folder(plain, task="text-classification").shape
    model = ElasticTransformer(shape, dropout=0.0)
    order = BatchOrder(rows_of(data, plain), 32, 0)
    run = TrainingRun(model, Schedule(learning_rate=2e-3, total_steps=80), seed=0)
    run.advance(finetuning_losses(model, order), should_stop=lambda: False)
    (folder / "large").mkdir()
    write_model(model, folder / "large", labels)
    shutil.copy(plain / TOKENIZER_FILE, folder / "large")
    return folder / "large"


def write_unlabelled(path: Path, held_out: Path) -> Path:
    """Fresh rows, and those of the data too, which are no secret but for the splits that judge."""
    lines = tiny_job.write_data(path, num_rows=500, seed=8).read_text().splitlines()
    rows = [json.loads(line) for line in (*lines, *held_out.read_text().splitlines())]
    path.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    return path


@dataclass(frozen=True, slots=True)
class Files:
    model: Path
    data: Path
    large: Path
    more: Path

    def spec(self, workshop: Workshop, stages: list[dict[str, Any]], **parts: Any) -> Any:
        teaching: dict[str, Any] = {}
        if any(stage.get("teacher") for stage in stages):
            upload = workshop.upload("teacher", sorted(self.large.iterdir()), TASK)
            teaching["teachers"] = {"large": {"upload": upload}}
        if any(stage["kind"] == "distill-relations" for stage in stages):
            summary = {**TASK, "text": "text"}
            upload = workshop.upload("unlabelled", [self.more], summary)
            teaching["unlabelled"] = {"upload": upload}
        spec = tiny_job.spec(
            workshop.upload("model", sorted(self.model.iterdir())),
            workshop.upload("dataset", [self.data]),
            **{
                "targets": [{"budget_ratio": 1.0, "workload": {"seq_len": 16}}],
                "search": SEARCH,
                "space": {"num_layers": [3], "num_heads": [4], "ffn_dim": [32, 64]},
                "compress": {"stages": stages, "max_loss": 0.2},
                "robustness": {"rows": 0},
                **teaching,
                **parts,
            },
        )
        spec["space"]["precision"] = ["fp32"]
        # Too little for the job's own model to learn the task.
        spec["training"] |= BRIEF | {"teacher_epochs": 0.1}
        return spec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("sources")
    data = tiny_job.write_data(folder / "rows.jsonl")
    return Files(
        tiny_job.write_model(folder / "model"),
        data,
        write_teacher(folder, data),
        write_unlabelled(folder / "more.jsonl", data),
    )


@dataclass(frozen=True, slots=True)
class Taught:
    workshop: Workshop
    job: Job
    device: Recorded

    @property
    def stages(self) -> list[dict[str, Any]]:
        assert self.job.result is not None
        found: list[dict[str, Any]] = self.job.result["targets"][0]["recipe"]["stages"]
        return found

    def network_after(self, num_stages: int) -> Compressed:
        """As it stood when so many stages had been tried."""
        recipes = [
            step.input["targets"][0]["recipe"]
            for step in self.workshop.steps(self.job.id)
            if step.kind == "compress"
        ]
        recipe = next(r for r in recipes if r and len(r["outcomes"]) == num_stages)
        return load_compressed(self.workshop.store.path(recipe["network"]))


@pytest.fixture(scope="module")
def taught(open_workshop: OpenWorkshop, files: Files) -> Iterator[Taught]:
    with open_workshop() as workshop:
        # Networks between two stages are looked at later.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workshop.store, "delete", lambda _: None)
            device = workshop.measure = Recorded(quietly(workshop.measure_here))
            job = workshop.run(workshop.submit(files.spec(workshop, [RELATIONS, ANSWERS])))
        assert job.state == "succeeded", job.reason_message
        yield Taught(workshop, job, device)


def test_a_named_teacher_of_other_sizes_teaches_what_the_job_s_own_model_does_not_know(
    taught: Taught,
) -> None:
    shallower, answering = taught.stages
    assert shallower["before"]["quality"] < 0.7
    assert answering["after"]["quality"] > 0.8
    assert answering["is_kept"], answering["reason"]
    assert answering["after"]["num_params"] == shallower["after"]["num_params"]


def test_relations_are_learnt_from_rows_without_labels_by_a_shallower_network(
    taught: Taught, files: Files
) -> None:
    stage, _ = taught.stages
    assert stage["is_kept"], stage["reason"]
    assert stage["after"]["flops"] < 0.75 * stage["before"]["flops"]
    winner, student = taught.network_after(0), taught.network_after(1)
    assert (winner.subnet.num_layers, student.subnet.num_layers) == (3, 2)
    config = DistillRelationsConfig(teacher="large", num_layers=2)
    start = winner.smaller(student_sizes(winner.model.shape, winner.subnet.renumbered(), config))
    teacher = read_teacher(files.large, winner.model.shape).model
    batch = rows_of(files.data, files.model).batch(range(64))
    with torch.no_grad():
        theirs = RelationsOfLayer(teacher, 4)([], batch)
        before, after = (
            float(relation_error(found.model(batch), theirs, batch)) for found in (start, student)
        )
    assert after < 0.6 * before


def test_rows_that_networks_are_judged_by_are_not_learnt_from(taught: Taught) -> None:
    (told,) = [e for e in taught.workshop.events(taught.job.id) if e.kind == "unlabelled"]
    step = next(s for s in taught.workshop.steps(taught.job.id) if s.kind == "compress")
    rows = {
        name: load_rows(taught.workshop.store.path(step.input["blobs"][name]))
        for name in (*SPLITS, "unlabelled")
    }

    def contents(name: str) -> set[bytes]:
        found = rows[name]
        return {found.batch([i]).inputs.numpy().tobytes() for i in range(len(found))}

    for name in SPLITS[1:]:
        assert not contents("unlabelled") & contents(name)
    assert contents("unlabelled") & contents("train")
    assert told.data["rows"] == len(rows["unlabelled"])
    assert told.data["held_out"] >= len(rows["search"]) + len(rows["test"])


def test_the_lineage_has_the_hashes_of_what_was_learnt_from(taught: Taught) -> None:
    found = next(a for a in taught.workshop.artifacts(taught.job.id) if a.name == "metrics.json")
    data = json.loads(taught.workshop.store.path(found.sha256).read_text())["data"]
    spec = taught.job.spec
    with taught.workshop.database.read() as session:
        teacher = files_of(session, spec["teachers"]["large"]["upload"])
        (more,) = files_of(session, spec["unlabelled"]["upload"])
    (weights,) = (file.sha256 for file in teacher if file.name == "model.safetensors")
    assert data["teachers_sha256"] == {"large": weights}
    assert data["unlabelled_sha256"] == more.sha256


def test_a_job_whose_learning_was_killed_in_slices_is_the_same_job(
    taught: Taught, files: Files, open_workshop: OpenWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = Killer(monkeypatch)

    def run_step(step: Step) -> None:
        if step.kind in ("prepare", "compress"):
            killer.run(workshop, step)
        else:
            workshop.run_step(step)

    with open_workshop(taught.device, step_seconds=0.1) as workshop:
        job = workshop.run(workshop.submit(files.spec(workshop, [RELATIONS, ANSWERS])), run_step)
        assert job.state == "succeeded", job.reason_message
        assert job.result is not None
        assert killer.deaths["finish"] > 6
        assert taught.job.result is not None
        assert job.result["targets"] == taught.job.result["targets"]
        assert content(workshop.artifacts(job.id)) == content(
            taught.workshop.artifacts(taught.job.id)
        )


def test_a_teacher_is_asked_once_however_many_slices_its_student_takes(
    files: Files, open_workshop: OpenWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Counted(TeacherOutputs):
        def __init__(self, teacher: ElasticTransformer, *args: Any, **options: Any) -> None:
            asked.append((teacher.shape.embed_dim, options["attention"]))
            super().__init__(teacher, *args, **options)

    stage = {**ANSWERS, "epochs": 6, "attention": 0.1}
    with open_workshop(step_seconds=0.1) as workshop:
        workshop.measure = quietly(workshop.measure_here)
        job_id = workshop.submit(files.spec(workshop, [stage]))
        workshop.run_until(job_id, "compress")
        monkeypatch.setattr(teacher_module, "TeacherOutputs", Counted)
        job = workshop.run(job_id)
        assert job.result is not None
        (found,) = job.result["targets"][0]["recipe"]["stages"]
        assert found["after"], found["reason"]
        assert sum(step.kind == "compress" for step in workshop.steps(job_id)) > 4
    assert asked == [(48, True)]


def test_what_makes_no_teacher_is_refused_before_anything_is_trained(
    files: Files, open_workshop: OpenWorkshop, tmp_path: Path
) -> None:
    """What a server without the tokenizers' library cannot tell."""
    large = shutil.copytree(files.large, tmp_path / "large")
    spec = json.loads((large / TOKENIZER_FILE).read_text())
    spec["normalizer"]["lowercase"] = False
    (large / TOKENIZER_FILE).write_text(json.dumps(spec))
    with open_workshop() as workshop:
        other = Files(files.model, files.data, large, files.more)
        job = workshop.run(workshop.submit(other.spec(workshop, [ANSWERS])))
        assert job.state == "failed"
        assert job.reason_code == "invalid_input"
        assert "teachers.large: must have the network's tokenizer" in str(job.reason_message)
        assert "its normalizer differs" in str(job.reason_message)
        assert [step.kind for step in workshop.steps(job.id)] == ["prepare"]


def test_a_trained_supernet_is_searched_again_with_sources_of_its_own(
    taught: Taught, files: Files
) -> None:
    workshop = taught.workshop
    for stages in ([RELATIONS], [{**ANSWERS, "teacher": ""}]):
        spec = files.spec(workshop, stages, supernet_of=taught.job.id)
        job_id = workshop.submit(spec)
        first = workshop.open_step(job_id)
        assert first is not None
        assert workshop.run_step(first) == "done"
        told = [e.kind for e in workshop.events(job_id)]
        assert ("unlabelled" in told) == (stages == [RELATIONS])
        with_blobs = [step.input for step in workshop.steps(job_id) if "blobs" in step.input]
        assert all(
            bool(given["blobs"]["unlabelled"]) == (stages == [RELATIONS]) for given in with_blobs
        )


def test_images_without_labels_teach_relations_too(
    open_workshop: OpenWorkshop, tmp_path: Path
) -> None:
    task = {"task": "image-classification"}
    with np.load(images(tmp_path)) as labelled:
        pixels = labelled["images"]
    np.savez_compressed(tmp_path / "more.npz", images=255 - pixels)
    stage = {"kind": "distill-relations", "embed_dim": 16, "epochs": 2}
    with open_workshop() as workshop:
        workshop.measure = quietly(workshop.measure_here)
        more = workshop.upload("unlabelled", [tmp_path / "more.npz"], task)
        spec = tiny_job.spec(
            workshop.upload("model", sorted(vit(tmp_path).iterdir())),
            workshop.upload("dataset", [tmp_path / "images.npz"], task),
            targets=[{"budget_ratio": 1.0, "workload": {}}],
            search=SEARCH,
            task="image-classification",
            space={"preset": "small"},
            compress={"stages": [stage, {"kind": "distill"}], "max_loss": 1.0},
            unlabelled={"upload": more},
            robustness={"rows": 0},
        )
        spec["training"] |= BRIEF
        job = workshop.run(workshop.submit(spec))
        assert job.state == "succeeded", job.reason_message
        assert job.result is not None
        found = job.result["targets"][0]["recipe"]["stages"][0]
        assert found["is_kept"], found["reason"]
        assert found["after"]["num_params"] < 0.7 * found["before"]["num_params"]
