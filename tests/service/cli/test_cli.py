"""The command line against a real server: what it prints, and the codes it ends with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.cli.errors import INTERRUPTED, MEANINGS, NOT_FOUND, exit_code
from service.cli.program import app
from service.client import Client, Corrupted
from service.client.errors import error_of
from service.client.retries import Tries
from service.database.db import Database
from service.embedded.instance import Instance
from service.jobs.events import append_event
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import NewArtifact, StepResult
from service.store.filesystem import FilesystemStore
from tests.search.model.folders import write_model
from tests.service.commands import Cli
from tests.service.helpers import claimed, create_job
from tests.service.serving import listening, write_data

JOB = """\
name: reviews
model: {path: model}
data: {path: data.csv}
targets:
  - {budget_ratio: 0.25, workload: {seq_len: 16}}
training: {max_seq_len: 16}
"""


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    with listening(settings) as (url, key):
        monkeypatch.setenv("SNUGNET_URL", url)
        monkeypatch.setenv("SNUGNET_API_KEY", key)
        yield url, key


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    write_data(tmp_path / "data.csv")
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def conclude(database: Database, job_id: str, result: dict[str, Any] | None) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        append_event(session, job_id, "note", "halfway [through]")
        if result is None:
            steps.fail(session, lease, "budget_unreachable", "too fast")
        else:
            steps.finish(session, lease, StepResult(result=result))


@pytest.mark.usefixtures("server")
def test_submit_prints_the_id_alone_on_standard_output(cli: Cli, job_file: Path) -> None:
    code, out, err = cli("submit", str(job_file))
    assert code == 0
    assert re.fullmatch(r"job_[a-z0-9]+\n", out)
    assert "uploading the model" in err
    code, listing, _ = cli("jobs")
    assert code == 0
    assert out.strip() in listing
    assert "queued" in listing
    job_id = out.strip()
    for command, state in (
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
        ("retry", "queued"),
        ("cancel", "cancelled"),
    ):
        assert cli(command, job_id)[:2] == (0, f"{state}\n")
    assert cli("delete", job_id)[:2] == (0, "")
    assert cli("retry", job_id)[0] == NOT_FOUND


@pytest.mark.usefixtures("server")
def test_a_job_file_with_an_unknown_key_is_a_usage_error(cli: Cli, job_file: Path) -> None:
    job_file.write_text(JOB + "sed: 1\n")
    code, out, err = cli("submit", str(job_file))
    assert (code, out) == (2, "")
    assert err == "error: sed: unknown key; did you mean seed?\n"


@pytest.mark.usefixtures("server")
def test_what_the_server_refuses_is_a_usage_error_in_one_line(cli: Cli, job_file: Path) -> None:
    job_file.write_text(JOB.replace("{budget_ratio", "{device: pi, budget_ratio"))
    code, _, err = cli("submit", str(job_file))
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: targets[0].device: there is no device 'pi'")
    assert "Traceback" not in err


@pytest.mark.usefixtures("server")
def test_watch_prints_plain_lines_and_the_targets(cli: Cli, database: Database) -> None:
    job_id = create_job(database)
    target = {"budget_ms": 3.0, "p50_ms": 2.5, "quality": 0.8612345}
    conclude(database, job_id, {"targets": [target]})
    code, out, err = cli("watch", job_id)
    assert code == 0
    assert "halfway [through]" in err
    assert out.splitlines()[1].split() == ["3", "2.5", "0.8612"]
    assert "\x1b" not in out + err


@pytest.mark.usefixtures("server")
def test_watch_ends_with_1_when_the_job_failed(cli: Cli, database: Database) -> None:
    job_id = create_job(database)
    conclude(database, job_id, None)
    code, _, err = cli("watch", job_id)
    assert code == 1
    assert err.endswith(f"error: {job_id} failed: too fast\n")


@pytest.mark.usefixtures("server")
def test_watch_follows_a_job_that_goes_on(cli: Cli, database: Database) -> None:
    job_id = create_job(database)
    timer = threading.Timer(0.3, conclude, (database, job_id, {}))
    timer.start()
    assert cli("watch", job_id)[0] == 0
    timer.join()


@pytest.mark.usefixtures("server")
def test_a_terminal_gets_a_bar(cli: Cli, database: Database, monkeypatch: Any) -> None:
    job_id = create_job(database)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    timer = threading.Timer(0.3, conclude, (database, job_id, {}))
    timer.start()
    code, out, err = cli("watch", job_id)
    timer.join()
    assert (code, out) == (0, "")
    assert "\x1b" in err
    assert "halfway" in err


@pytest.mark.usefixtures("server")
def test_download_writes_into_a_folder_named_by_the_job(
    cli: Cli, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    artifact = NewArtifact(
        name="metrics.json", sha256=store.put_bytes(b"{}"), size_bytes=2, media_type="text/plain"
    )
    with database.write() as session:
        steps.finish(session, lease, StepResult(result={}, artifacts=[artifact]))
    code, out, _ = cli("download", job_id)
    assert (code, out) == (0, f"{job_id}/metrics.json\n")
    assert (tmp_path / job_id / "metrics.json").read_bytes() == b"{}"
    assert cli("download", job_id, "here", "-o", "json")[1] == '[\n  "here/metrics.json"\n]\n'


@pytest.mark.usefixtures("server")
def test_devices_are_listed(cli: Cli) -> None:
    code, out, _ = cli("devices")
    assert code == 0
    assert "this-cpu" in out
    assert "onnxruntime 1.0" in out
    assert "connected" in out


@pytest.mark.usefixtures("server")
def test_each_kind_of_failure_has_its_code(cli: Cli) -> None:
    assert cli("watch", "job_x") == (4, "", "error: there is no search job 'job_x'\n")
    code, _, err = cli("jobs", "--api-key", "wrong")
    assert code == 3
    assert "SNUGNET_API_KEY" in err
    code, _, err = cli("jobs", "--url", "nonsense")
    assert (code, err.count("\n")) == (2, 1)
    assert cli("jobs", "--limit", "0")[0] == 2
    assert cli("nothing")[0] == 2


def test_a_server_that_is_not_there_is_a_network_error(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tries, "_backoff_s", lambda *_: 0.0)
    code, _, err = cli("jobs", "--url", "http://127.0.0.1:9")
    assert code == 5
    assert err.startswith("error: no answer from http://127.0.0.1:9")


def test_without_a_server_the_command_says_how_to_get_one(cli: Cli) -> None:
    code, _, err = cli("jobs")
    assert code == 2
    assert "snugnet up" in err


def test_the_local_service_is_found(
    cli: Cli, server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key = server
    for name in ("SNUGNET_URL", "SNUGNET_API_KEY"):
        monkeypatch.delenv(name)
    folder = tmp_path / ".snugnet"
    folder.mkdir()
    Instance(url=url, api_key=key, pid=os.getpid()).save(folder)
    assert cli("devices")[0] == 0
    Instance(url=url, api_key=key, pid=None).save(folder)
    code, _, err = cli("devices")
    assert code == 5
    assert "snugnet up" in err


def test_the_key_of_the_local_service_is_never_sent_to_another_server(
    cli: Cli, server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key = server
    monkeypatch.delenv("SNUGNET_API_KEY")
    (tmp_path / ".snugnet").mkdir()
    Instance(url="http://127.0.0.1:9", api_key=key, pid=1).save(tmp_path / ".snugnet")
    assert cli("devices", "--url", url)[0] == 3


def test_down_without_a_service_is_no_error(cli: Cli) -> None:
    assert cli("down") == (0, "no service was running\n", "")


@pytest.mark.usefixtures("server")
def test_a_job_is_shown_whole_and_with_its_events(cli: Cli, database: Database) -> None:
    job_id = create_job(database, labels={"team": "nlp"})
    conclude(database, job_id, None)
    code, out, _ = cli("show", job_id)
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["state"] == "failed"
    assert facts["reason"] == "too fast (budget_unreachable)"
    assert facts["labels"] == "team=nlp"
    code, out, _ = cli("events", job_id, "--after", "2")
    assert code == 0
    assert "halfway [through]" in out
    assert [line.split()[0] for line in out.splitlines()] == ["number", "3", "4"]


@pytest.mark.usefixtures("server")
def test_jobs_are_found_by_their_labels_and_states(cli: Cli, job_file: Path) -> None:
    ids = [cli("submit", str(job_file), "--label", f"n={n}")[1].strip() for n in range(2)]
    cli("cancel", ids[0])

    def found(*options: str) -> list[str]:
        return [job["id"] for job in json.loads(cli("jobs", *options, "-o", "json")[1])]

    assert found() == ids[::-1]
    assert found("--label", "n=1") == [ids[1]]
    assert found("--label", "n", "--limit", "1") == [ids[1]]
    assert found("--state", "cancelled") == [ids[0]]
    assert cli("jobs", "--state", "unknown")[0] == 2
    assert cli("submit", str(job_file), "--label", "n")[0] == 2


@pytest.mark.usefixtures("server")
def test_a_dry_run_shows_what_a_job_takes_and_queues_nothing(cli: Cli, job_file: Path) -> None:
    code, out, _ = cli("submit", str(job_file), "--dry-run")
    assert code == 0
    assert "networks in the space" in out
    assert "this-cpu" in out
    assert json.loads(cli("submit", str(job_file), "--dry-run", "-o", "json")[1])["targets"]
    assert json.loads(cli("jobs", "-o", "json")[1]) == []


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "argv",
    [
        ("jobs",),
        ("show", "{job}"),
        ("events", "{job}"),
        ("cancel", "{job}"),
        ("watch", "{job}"),
        ("download", "{job}"),
        ("devices",),
        ("devices", "show", "this-cpu"),
        ("devices", "rename", "this-cpu", "this-cpu"),
        ("devices", "retire", "this-cpu"),
        ("keys", "list"),
        ("keys", "create", "x", "--scope", "jobs:read"),
        ("status",),
        ("doctor",),
    ],
)
def test_data_are_json_or_yaml_alone_on_standard_output(
    cli: Cli, database: Database, argv: tuple[str, ...]
) -> None:
    job_id = create_job(database)
    conclude(database, job_id, {})
    words = [word.format(job=job_id) for word in argv]
    shown = json.loads(cli(*words, "-o", "json")[1])
    again = yaml.safe_load(cli(*words, "--output", "yaml")[1])
    assert type(again) is type(shown)
    if argv[0] in ("jobs", "show", "events", "watch"):
        assert again == shown


@pytest.mark.usefixtures("server")
def test_following_a_job_with_json_shows_its_final_state_alone(
    cli: Cli, database: Database
) -> None:
    job_id = create_job(database)
    conclude(database, job_id, {"targets": []})
    code, out, err = cli("watch", job_id, "-o", "json")
    assert code == 0
    assert json.loads(out)["state"] == "succeeded"
    assert "halfway" in err


def test_ctrl_c_stops_following_and_not_the_job(
    server: tuple[str, str], database: Database
) -> None:
    job_id = create_job(database)
    code = "from service.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "watch", job_id],
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: the tests themselves may run where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as watching:
        assert watching.stderr is not None
        assert "the job was created" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        said = watching.stderr.read()
    assert watching.returncode == INTERRUPTED
    assert said.strip() == f"The job goes on; `snugnet watch {job_id}` follows it again."
    with Client(*server) as client:
        assert client.job(job_id).state == "queued"


@pytest.mark.usefixtures("server")
def test_a_folder_that_cannot_be_written_is_one_line(
    cli: Cli, database: Database, store: FilesystemStore
) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    artifact = NewArtifact(
        name="x", sha256=store.put_bytes(b"{}"), size_bytes=2, media_type="text/plain"
    )
    with database.write() as session:
        steps.finish(session, lease, StepResult(result={}, artifacts=[artifact]))
    Path("taken").write_text("a file")
    assert cli("download", job_id, "taken/in") == (1, "", "error: taken/in: Not a directory\n")


def help_of(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
    ).stdout


def test_help_names_every_command_and_every_exit_code() -> None:
    shown = help_of()
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert f" {name} " in shown
    for code, meaning in MEANINGS.items():
        assert re.search(rf"^ *{code}  {meaning}", shown, re.MULTILINE)
    assert "\x1b" not in shown


def test_exit_codes_are_what_the_help_says() -> None:
    assert list(MEANINGS) == [0, 1, 2, 3, 4, 5, 130]
    problem = {"title": "", "detail": "", "code": ""}
    for status, code in (
        (400, 2), (401, 3), (403, 3), (404, 4), (409, 4), (412, 4), (413, 2), (422, 2), (429, 5),
        (503, 5),
    ):  # fmt: skip
        answer = httpx.Response(status, json={**problem, "status": status})
        assert exit_code(error_of(answer)) == code
    assert exit_code(Corrupted("x")) == 1
