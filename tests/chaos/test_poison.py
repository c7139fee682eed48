"""Steps that kill their process, eat its memory or never end: their jobs fail, no other does."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from service.database.models import Step
from service.steps.step_types import MAX_ATTEMPTS
from tests.chaos.checks import assert_sound
from tests.chaos.conftest import OpenSite
from tests.chaos.site import Site
from tests.workers.small_steps import read_log

pytestmark = pytest.mark.chaos


def assert_poison(site: Site, job_id: str, text: str) -> None:
    """Every attempt was begun, and the reason says what the step died of."""
    site.wait_for_state(job_id, state="failed")
    job = site.job(job_id)
    assert job.reason_code == "poison_step"
    assert text in (job.reason_message or "")
    (step,) = site.steps(job_id)
    assert (step.state, step.attempts) == ("failed", MAX_ATTEMPTS)
    begun = [
        attempt for s, attempt, _, what in read_log(site.folder) if (s, what) == (step.id, "begin")
    ]
    assert begun == list(range(1, MAX_ATTEMPTS + 1))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("suicide", "its worker died"), ("segfault", "its worker died"), ("greedy", "MemoryError")],
)
def test_a_poison_step_fails_its_job_and_no_other(
    open_site: OpenSite, kind: str, text: str
) -> None:
    site = open_site(lease_seconds=60.0)
    site.start_dispatcher()
    worker = site.start_worker()
    before = [site.submit("link", number=1, total=2, seconds=0.1) for _ in range(2)]
    poison = site.submit(kind)
    behind = [site.submit("link", number=1, total=2, seconds=0.1) for _ in range(2)]
    assert_poison(site, poison, text)
    site.wait_for_state(*before, *behind)
    repeated = [s.attempts - 1 for j in (*before, *behind) for s in site.steps(j)]
    print(f"\n{kind}: failed after {MAX_ATTEMPTS} attempts, 4 neighbours succeeded")
    assert worker.is_alive
    assert set(repeated) == {0}
    assert_sound(site.database)


def test_a_step_that_takes_too_long_is_stopped_and_in_the_end_given_up(
    open_site: OpenSite,
) -> None:
    site = open_site(step_limit_seconds=1.0)
    site.start_dispatcher()
    site.start_worker()
    job_id = site.submit("sleepy")
    neighbour = site.submit("link", number=1, total=2, seconds=0.02)
    assert_poison(site, job_id, "SoftTimeLimitExceeded")
    site.wait_for_state(neighbour)
    print(f"\nstopped {MAX_ATTEMPTS} times after its time was over, then given up")
    assert_sound(site.database)


def test_a_step_that_does_not_listen_is_killed(open_site: OpenSite, tmp_path: Path) -> None:
    site = open_site(lease_seconds=60.0, step_limit_seconds=1.0)
    site.start_dispatcher()
    # A minute is given to a step that was told to stop; nobody wants to wait for that here.
    hook = "import service.steps.queue\nservice.steps.queue.KILL_GRACE_SECONDS = 2.0\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    worker = site.start_worker(PYTHONPATH=str(tmp_path))
    job_id = site.submit("deaf")
    site.wait_for_step(job_id)
    with site.database.write() as session:  # as if it had been tried twice before
        session.execute(
            update(Step).where(Step.job_id == job_id).values(attempts=MAX_ATTEMPTS - 1)
        )
    site.wait_for_state(job_id, state="failed")
    neighbour = site.submit("patient")
    site.wait_for_state(neighbour)
    (step,) = site.steps(job_id)
    notes = [what for s, _, _, what in read_log(site.folder) if s == step.id]
    print(f"\n{notes}: killed at the hard limit, its job failed as poison")
    assert (site.job(job_id).reason_code, step.attempts) == ("poison_step", MAX_ATTEMPTS)
    assert notes == ["begin", "told-to-stop"] * 2
    assert worker.is_alive
    assert_sound(site.database)
