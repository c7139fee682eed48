"""Messages that come too often, too late, or are none: the rows say what is to be done."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from service.jobs import lifecycle
from service.steps.queue import RUN_STEP
from tests.chaos.checks import assert_sound, num_evaluations
from tests.chaos.conftest import OpenSite
from tests.chaos.site import PATIENCE_S, Site
from tests.chaos.steps import COPIES_VARIABLE, EVALUATIONS_OF_LINK
from tests.workers.small_steps import read_log
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

LINKS = 4


def test_every_message_three_times_is_every_step_once(open_site: OpenSite) -> None:
    site = open_site(log_level="debug")
    # A dispatcher knows nothing of the steps' module, where the copies are made.
    workers = [site.start_worker(**{COPIES_VARIABLE: "3"}) for _ in range(2)]
    dispatcher = site.start_copying_dispatcher(3)
    job_ids = [site.submit("link", number=1, total=LINKS, seconds=0.05) for _ in range(5)]
    site.wait_for_state(*job_ids)
    wait_until(lambda: site.redis.llen("light") == 0, timeout_s=PATIENCE_S)
    answered = [line for w in workers for line in w.log.read_text().splitlines()]
    num_done = sum("a wake-up was answered: done" in line for line in answered)
    num_idle = sum("a wake-up was answered: nothing to do" in line for line in answered)
    print(f"\n{num_done} steps done, {num_idle} further messages had nothing to do")
    assert dispatcher.is_alive
    assert num_done == len(job_ids) * LINKS
    assert num_idle >= num_done
    assert {step.attempts for job_id in job_ids for step in site.steps(job_id)} == {1}
    for job_id in job_ids:
        assert num_evaluations(site.database, job_id) == LINKS * EVALUATIONS_OF_LINK
    assert_sound(site.database)


def message(step_id: Any, **changes: Any) -> dict[str, Any]:
    """As Celery writes it; `changes` are of the envelope."""
    body = json.dumps([[step_id], {}, {"callbacks": None, "errbacks": None}])
    task_id = str(uuid.uuid4())
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": RUN_STEP, "id": task_id, "root_id": task_id},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "light"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
        **changes,
    }


def wrong_messages() -> dict[str, bytes]:
    """What a worker can make nothing of."""
    plain = message("step_x")
    shortened = base64.b64encode(b'[["step_x"], {').decode()
    pickled = base64.b64encode(b"cos\nsystem\n(S'touch pwned'\ntR.").decode()
    headers = plain["headers"]
    return {
        name: content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, content in {
            "a body that is no JSON": message("step_x", body=shortened),
            "a pickle": message(
                "step_x", body=pickled, **{"content-type": "application/x-python-serialize"}
            ),
            "an unknown content type": message("step_x", **{"content-type": "text/x-nothing"}),
            "an unknown task": message("step_x", headers={**headers, "task": "os.system"}),
            "no task": message("step_x", headers={}),
            "no arguments": message("step_x", body=base64.b64encode(b"[[], {}, {}]").decode()),
            "a number for an id": message(7),
            "null": b"null",
            "half a message": json.dumps(plain).encode()[:80],
            "no JSON at all": b"\x00\xff hello",
            "no properties": {"body": plain["body"]},
        }.items()
    }


def test_what_is_no_message_does_not_stop_a_worker(open_site: OpenSite) -> None:
    site = open_site()
    site.start_dispatcher()
    worker = site.start_worker()
    wrong = wrong_messages()
    for name, content in wrong.items():
        site.redis.lpush("light", content)
        job_id = site.submit("patient")
        site.wait_for_state(job_id)
        assert worker.is_alive, name
    wait_until(lambda: site.redis.llen("light") == 0, timeout_s=PATIENCE_S)
    print(f"\n{len(wrong)} wrong messages, and a job after each one: the worker lived")
    assert not (site.folder / "pwned").exists()
    assert_sound(site.database)


def test_messages_for_steps_that_are_none_or_have_ended_change_nothing(
    open_site: OpenSite,
) -> None:
    site = open_site(log_level="debug")
    site.start_dispatcher()
    worker = site.start_worker()
    done = site.submit("link", number=1, total=1)
    site.wait_for_state(done)
    gate = site.folder / "gate"
    gate.touch()
    cancelled = site.submit("patient")
    site.wait_for_step(cancelled)
    with site.database.write() as session:
        lifecycle.request_cancel(session, cancelled)
    site.wait_for_state(cancelled, state="cancelled")
    gate.unlink()
    before = snapshot(site, done, cancelled)
    ids = ["step_unknown", site.steps(done)[0].id, site.steps(cancelled)[0].id]
    idle = worker.log.read_text().count("answered: nothing to do")
    for step_id in ids * 3:
        site.redis.lpush("light", json.dumps(message(step_id)))
    wait_until(
        lambda: worker.log.read_text().count("answered: nothing to do") >= idle + 9,
        timeout_s=PATIENCE_S,
    )
    print("\n9 messages for unknown, finished and cancelled steps: nothing to do")
    assert snapshot(site, done, cancelled) == before
    assert len([what for *_, what in read_log(site.folder) if what == "begin"]) == 1
    assert_sound(site.database)


def snapshot(site: Site, *job_ids: str) -> list[Any]:
    return [
        (site.job(job_id).version, [(s.id, s.state, s.token) for s in site.steps(job_id)])
        for job_id in job_ids
    ]
