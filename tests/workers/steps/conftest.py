"""One whole job, run once and looked at by many tests; and workshops for jobs of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from service.database.db import Database
from service.database.models import Job, Step
from service.settings import Settings
from service.steps.step_types import NewStep
from service.store.filesystem import FilesystemStore
from service.tenants.tenancy import DEFAULT_TENANT
from tests.workers.steps import tiny_job
from tests.workers.steps.in_process import Measure, Recorded, Workshop

OpenWorkshop = Callable[..., AbstractContextManager[Workshop]]


@dataclass(frozen=True, slots=True)
class WholeJob:
    """A finished job, the workshop that ran it, and what the device answered meanwhile."""

    workshop: Workshop
    job: Job
    spec: dict[str, Any]
    device: Recorded

    def step(self, kind: str) -> Step:
        """Its first step of a kind."""
        return next(s for s in self.workshop.steps(self.job.id) if s.kind == kind)

    def again_from(self, kind: str, target: dict[str, Any], **changes: Any) -> str:
        """Another job of one target that starts at the first step of this kind.

        Args:
            changes: of what that step was given.
        """
        spec = {**self.spec, "targets": [{"workload": {"seq_len": 32}, **target}]}
        given = {**self.step(kind).input, "profiles_of_target": [[0]], **changes}
        return self.workshop.submit(spec, NewStep(kind=kind, input=given))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks are slower with more, and the machine has other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "model": sorted(tiny_job.write_model(folder / "model").iterdir()),
        "dataset": [tiny_job.write_data(folder / "rows.jsonl")],
    }


@pytest.fixture(scope="session")
def open_workshop(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> OpenWorkshop:
    @contextmanager
    def open_(measure: Measure | None = None, **options: Any) -> Iterator[Workshop]:
        folder = tmp_path_factory.mktemp("data")
        shutil.copy(migrated_sqlite, folder / "snugnet.db")
        settings = Settings(
            data_dir=folder,
            threads=1,
            retry_backoff_seconds=0.0,
            **{"step_seconds": 30, **options},
        )
        database = Database(settings.database_url).for_tenant(DEFAULT_TENANT)
        store = FilesystemStore(settings.blobs_dir)
        yield Workshop(settings, database, store, measure)
        database.dispose()

    return open_


@pytest.fixture(scope="session")
def whole_job(open_workshop: OpenWorkshop, files: dict[str, list[Path]]) -> Iterator[WholeJob]:
    """Run in slices of a tenth of a second, measured on this machine."""
    with open_workshop(step_seconds=0.1) as workshop:
        device = workshop.measure = Recorded(quietly(workshop.measure_here))
        spec = submitted(workshop, files)
        job = workshop.run(workshop.submit(spec))
        yield WholeJob(workshop, job, spec, device)


def submitted(workshop: Workshop, files: dict[str, list[Path]], **parts: Any) -> dict[str, Any]:
    """A spec whose files are uploaded."""
    return tiny_job.spec(
        workshop.upload("model", files["model"]),
        workshop.upload("dataset", files["dataset"]),
        **parts,
    )


def quietly(measure: Measure) -> Measure:
    """Networks this small look noisy beside other work; measuring them again would not help."""

    def measure_once(spec: Any) -> dict[str, Any]:
        result = measure(spec)
        return {**result, "session": {**result["session"], "noisy": False}}

    return measure_once
