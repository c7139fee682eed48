"""The examples' folders are complete: every job file names what lies beside it, and is valid.

Their small jobs are run as blocks of the tutorials (`tests/docs`) and by `make demo-small`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.data.dataset import read_dataset
from search.model.checkpoint import check_model_folder
from service.jobs.jobfile import load_job_file
from tests.docs.blocks import ROOT, blocks_of

MADE_HERE = ("digits", "source_code")
TUTORIALS = {"digits": "vision-model", "source_code": "language-model"}
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module", params=MADE_HERE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / request.param
    command = [sys.executable, "-m", f"examples.{request.param}.prepare", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}/ is complete: snugnet submit {folder}/job.yaml --watch\n"
    return folder


def test_the_folder_holds_what_its_jobs_name(folder: Path) -> None:
    paths = sorted(folder.glob("job*.yaml"))
    assert [path.name for path in paths] == ["job-small.yaml", "job.yaml"]
    for path in paths:
        job = load_job_file(path)
        assert job.model.path is not None
        assert job.data.path is not None
        task = job.spec.task
        dataset = read_dataset(folder / job.data.path, task=task)
        model = folder / job.model.path
        checked = check_model_folder(model, num_labels=len(dataset.label_names), task=task)
        assert checked.shape.num_layers == 4


def test_preparing_twice_leaves_a_changed_job_alone(folder: Path) -> None:
    job = folder / "job.yaml"
    before = job.read_text()
    job.write_text(before + "# mine\n")
    command = [sys.executable, "-m", f"examples.{folder.name}.prepare", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert job.read_text() == before + "# mine\n"


@pytest.mark.parametrize(
    "path",
    sorted(EXAMPLES.glob("*/job*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_every_job_file_is_valid_as_it_stands(path: Path) -> None:
    assert load_job_file(path).spec.targets


@pytest.mark.parametrize("example", TUTORIALS)
def test_a_tutorial_runs_the_small_job(example: str) -> None:
    run = [b.code for b in blocks_of(f"docs/tutorials/{TUTORIALS[example]}.md") if not b.mark]
    name = example.replace("_", "-")
    assert any(f"submit {name}/job-small.yaml" in code for code in run)
    assert any(f"python -m examples.{example}.prepare {name}" in code for code in run)


def test_the_demos_small_job_is_run_by_ci() -> None:
    assert "make demo-small" in (ROOT / ".ci" / "run").read_text()
