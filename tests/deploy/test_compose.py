"""docker-compose.yml holds what docs/operations.md promises; read by the real Compose."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.program import app
from service.database.db import Database
from service.roles import METRICS_PORT_VARIABLE
from service.settings import PREFIX, Settings
from service.steps.step_kinds import QUEUES
from service.telemetry import metrics
from service.telemetry.metrics_database import DatabaseMetrics
from tests.deploy.compose import ROOT, is_ours, resolved, run_compose

DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")
# Read by roles that have no `Settings`: command line and agent.
OTHER_VARIABLES = {"SNUGNET_API_KEY_FILE", "SNUGNET_ALIVE_FILE", METRICS_PORT_VARIABLE}


def is_worker(service: dict[str, Any]) -> bool:
    return (service.get("command") or [])[:2] == ["snugnet", "worker"]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return resolved()


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = document["services"]
    return found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("cap_drop: [ALL]", "cap_drop: ALL"), "cap_drop"),
        (("broker:/data", "nowhere:/data"), "nowhere"),
        (("${SNUGNET_PORT:-8000}", "${SNUGNET_PORT:?is needed}"), "is needed"),
        (("condition: service_healthy", "condition: healthy"), "condition"),
    ],
)
def test_compose_does_find_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert change[0] in text
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace(*change))
    done = run_compose(broken, "--quiet")
    assert done.returncode != 0
    assert complaint in done.stderr


def test_every_role_is_there_and_all_queues_are_served(
    services: dict[str, dict[str, Any]],
) -> None:
    roles = {"migrations", "api", "dispatcher", "agent", "redis", "postgres", "store"}
    assert roles <= set(services)
    always = [s for s in services.values() if not s.get("profiles") and is_worker(s)]
    served = [s["command"][s["command"].index("--queue") + 1] for s in always]
    assert sorted(served) == sorted(QUEUES)


def test_everything_is_hardened(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        minutes, seconds = DURATION.fullmatch(service["stop_grace_period"]).groups("0")  # type: ignore[union-attr]
        assert 60 * int(minutes) + int(seconds) >= 60, name


def test_nothing_but_the_api_is_published_and_that_on_this_machine_only(
    services: dict[str, dict[str, Any]], document: dict[str, Any]
) -> None:
    published = {
        name: service["ports"] for name, service in services.items() if "ports" in service
    }
    assert list(published) == ["api"]
    assert [port["host_ip"] for port in published["api"]] == ["127.0.0.1"]
    for name in ("redis", "postgres", "store"):
        assert list(services[name]["networks"]) == ["back"]
    assert document["networks"]["back"]["internal"] is True


def test_no_secret_stands_in_the_environment(
    services: dict[str, dict[str, Any]], document: dict[str, Any]
) -> None:
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            is_secret = re.search("PASSWORD|KEY|SECRET|DATABASE_URL|BROKER_URL", variable)
            assert not is_secret or variable.endswith("_FILE"), (name, variable)
            assert "@" not in (value or ""), (name, variable)
    used = {s["source"] for service in services.values() for s in service.get("secrets", ())}
    assert used == set(document["secrets"])


def test_every_secret_is_one_that_the_script_makes_and_each_has_only_those_it_needs(
    services: dict[str, dict[str, Any]], document: dict[str, Any]
) -> None:
    script = (ROOT / "deploy" / "make-secrets.sh").read_text()
    for name, secret in document["secrets"].items():
        assert Path(secret["file"]) == ROOT / "deploy" / "secrets" / name
        assert name in script
    of = {n: {s["source"] for s in service.get("secrets", ())} for n, service in services.items()}
    assert of["agent"] == set()
    assert of["migrations"] == {"database_url"}
    assert of["redis"] == {"broker_acl"}
    admin = [n for n, s in services.items() if "admin-key" in str(s.get("volumes"))]
    assert admin == ["migrations"]


def test_every_variable_is_one_that_the_service_reads(
    services: dict[str, dict[str, Any]],
) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | OTHER_VARIABLES
    for name, service in services.items():
        given = {v for v in service.get("environment") or {} if v.startswith(PREFIX)}
        assert given <= known, name


def test_every_command_of_ours_is_one_that_exists(services: dict[str, dict[str, Any]]) -> None:
    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    for name, service in services.items():
        if is_ours(service) and service["command"][0] == "snugnet":
            assert service["command"][1] in names, name


def test_whoever_stays_is_watched_and_waits_for_what_it_needs(
    services: dict[str, dict[str, Any]],
) -> None:
    staying = {n: s for n, s in services.items() if s["restart"] == "unless-stopped"}
    assert set(services) - set(staying) == {"migrations", "bucket"}
    for name, service in staying.items():
        assert service["healthcheck"]["test"], name
    for name in ("api", "dispatcher", "worker-train", "worker-search", "worker-light"):
        needed = staying[name]["depends_on"]
        assert needed["migrations"]["condition"] == "service_completed_successfully"
        assert needed["redis"]["condition"] == "service_healthy"


def test_scratch_is_shared_by_no_two_containers(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name.startswith("worker"):
            (data,) = [v for v in service["volumes"] if v["target"] == "/data"]
            assert "source" not in data, name


def test_prometheus_asks_services_and_ports_that_exist(
    services: dict[str, dict[str, Any]],
) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    asked = {
        (name, places["port"])
        for job in config["scrape_configs"]
        for places in job["dns_sd_configs"]
        for name in places["names"]
    }
    assert ("api", 8000) in asked
    for name, port in asked - {("api", 8000)}:
        assert services[name]["environment"][METRICS_PORT_VARIABLE] == str(port)
    telling = {n for n, s in services.items() if METRICS_PORT_VARIABLE in s.get("environment", {})}
    assert telling == {name for name, _ in asked} - {"api"}


def test_every_alert_is_on_metrics_that_exist_and_is_explained(database: Database) -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
    told = (metrics.exposition() + DatabaseMetrics(database).exposition()).decode()
    names = set(re.findall(r"^# TYPE (\S+)", told, re.M)) | {"snugnet_predictor_error_ratio"}
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in rules:
        used = re.findall(r"snugnet_\w+", rule["expr"])
        assert used, rule["alert"]
        for name in used:
            assert name in names or name.removesuffix("_bucket") in names, name
        assert rule["alert"] in page


def test_the_page_explains_every_metric(database: Database) -> None:
    told = (metrics.exposition() + DatabaseMetrics(database).exposition()).decode()
    page = (ROOT / "docs" / "operations.md").read_text()
    names = re.findall(r"^# TYPE (snugnet_\S+?)(?:_created)? ", told, re.M)
    assert [name for name in dict.fromkeys(names) if f"`{name}" not in page] == []


def test_the_script_that_makes_the_bucket_parses() -> None:
    ast.parse((ROOT / "deploy" / "make_bucket.py").read_text())
