"""How long from a new budget, workload or device to a new front, on a supernet already trained.

A search of MiniLM on movie reviews runs once, with little training, through the service. Its
supernet is then searched again: for a tighter budget on the same device, for shorter texts, and
for a device that the service has never seen (another agent). Each time ends with the search: the
winners' distillation follows, and is not what is asked here.

python -m benchmarks.retarget [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import report_result
from examples.movie_reviews import prepare
from service.client import Client
from service.embedded.embedded import EmbeddedService
from service.embedded.instance import Instance
from service.jobs.jobfile import parse_job

JOB = Path(prepare.__file__).parent / "job-small.yaml"
DEVICE_TIMEOUT_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="little training, nothing kept")
    is_quick = parser.parse_args().quick
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedService(Path(folder) / "data") as instance,
        Client(instance.url, instance.api_key) as client,
    ):
        spec = _spec(client, Path(folder), is_quick=is_quick)
        first = client.wait(client.submit(spec).id)
        assert first.state == "succeeded", first.status_reason
        assert first.started_at is not None
        assert first.finished_at is not None
        seconds = first.finished_at - first.started_at
        figures: dict[str, Any] = {"first_search": {"seconds": seconds}}
        again = {**spec, "supernet_of": first.id}
        target = spec["targets"][0]
        figures["new_budget"] = _front_of(client, again, {**target, "budget_ratio": 0.18})
        shorter = {**target, "workload": {**target["workload"], "seq_len": 32}}
        figures["new_workload"] = _front_of(client, again, shorter)
        with _second_device(instance, Path(folder)) as name:
            _await_device(client, instance, name)
            figures["new_device"] = _front_of(client, again, {**target, "device": name})
    report_result("retarget", figures, keep=not is_quick)
    return 0


def _spec(client: Client, folder: Path, *, is_quick: bool) -> dict[str, Any]:
    """The small demo's job, with a search and a predictor as a user would want them."""
    wanted = yaml.safe_load(JOB.read_text())
    wanted["model"] = {"path": str(prepare.model_folder())}
    wanted["data"] = {"path": str(prepare.prepare_data(folder / "reviews").resolve())}
    if not is_quick:
        wanted["search"] = {"population": 16, "generations": 4, "fidelity_rows": 400}
        wanted["measuring"] = {"num_networks": 30, "num_holdout": 8}
        wanted["training"] |= {"teacher_epochs": 0.5, "supernet_epochs": 0.5}
    spec: dict[str, Any] = parse_job(wanted, Path.cwd()).resolve(client).model_dump(mode="json")
    return spec


def _front_of(
    client: Client, spec: Mapping[str, Any], target: Mapping[str, Any]
) -> dict[str, Any]:
    """Seconds until a search for `target` has ended, and what it found; then it is cancelled."""
    start = time.monotonic()
    job = client.submit({**spec, "targets": [dict(target)]})
    seconds: dict[str, float] = {}
    front: list[dict[str, Any]] = []
    for event in client.stream(job.id):
        if event.kind == "onboarded":
            seconds["onboarded"] = time.monotonic() - start
        if event.kind == "generation":
            front = event.data["front"]
            seconds["front"] = time.monotonic() - start
        if event.kind == "stage" and event.data["stage"] == "finish":
            break
    client.cancel(job.id)
    client.wait(job.id)
    evaluations = [e for e in client.evaluations(job.id) if e.source == "search"]
    return {
        "seconds_to_front": seconds["front"],
        "seconds_to_predictor": seconds["onboarded"],
        "networks_on_front": len(front),
        "front": front,
        "evaluations": len(evaluations),
    }


@contextmanager
def _second_device(instance: Instance, folder: Path) -> Iterator[str]:
    """This machine once more, as an agent of another name: the service knows nothing of it."""
    name = "another-cpu"
    argv = [sys.executable, "-m", "workers.agent", "--server", instance.url, "--name", name]
    argv += ["--state-dir", str(folder / "agent")]
    env = os.environ | {"SNUGNET_API_KEY": instance.api_key}
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL) as agent:
        try:
            yield name
        finally:
            agent.terminate()


def _await_device(client: Client, instance: Instance, name: str) -> None:
    deadline = time.monotonic() + DEVICE_TIMEOUT_S
    while name not in {device.name for device in client.devices()}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name!r} has not registered at {instance.url}")
        time.sleep(0.5)


if __name__ == "__main__":
    raise SystemExit(main())
