"""What the service of a data directory is doing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from search.errors import SnugnetError
from service.cli.connection import DataDir
from service.cli.errors import NETWORK
from service.cli.output import Format, Output, show
from service.cli.tables import make_table, print_facts, print_table
from service.client import Client
from service.embedded.instance import DEFAULT_DATA_DIR, Instance, is_running
from service.embedded.processes import processes_of

GOING = ("queued", "running", "pausing", "paused", "cancelling")


def status(data_dir: DataDir = DEFAULT_DATA_DIR, output: Output = Format.TABLE) -> None:
    """Show whether the service runs here, its processes, and how much there is to do.

    Ends with 5 when no service is running.
    """
    data_dir = data_dir.expanduser().resolve()
    found = _gather(data_dir)
    show(found, output, lambda: _print(found))
    if not found["is_running"]:
        raise typer.Exit(NETWORK)


def _gather(data_dir: Path) -> dict[str, Any]:
    instance = Instance.load(data_dir)
    if instance is None or instance.pid is None or not is_running(data_dir):
        return {"data_dir": str(data_dir), "is_running": False}
    processes = [asdict(process) for process in processes_of(instance.pid)]
    return {
        "data_dir": str(data_dir),
        "is_running": True,
        "url": instance.url,
        "processes": processes,
        **_ask(instance),
        **_count(data_dir),
    }


def _ask(instance: Instance) -> dict[str, Any]:
    """What the API knows; `error` where it does not answer."""
    try:
        with Client(instance.url, instance.api_key, max_tries=1, timeout_s=10.0) as client:
            return {
                "version": client.server_info().version,
                "is_ready": client.is_ready(),
                "agents_connected": [d.name for d in client.devices() if d.is_online],
            }
    except SnugnetError as error:
        return {"is_ready": False, "error": str(error)}


def _count(data_dir: Path) -> dict[str, dict[str, int]]:
    # The database is asked itself: where a service runs, there is what it takes.
    from service.database.db import Database
    from service.settings import Settings
    from service.telemetry.counts import jobs_by_state, open_steps_by_state

    database = Database(Settings(data_dir=data_dir).database_url)
    try:
        with database.read() as session:
            return {"jobs": jobs_by_state(session), "open_steps": open_steps_by_state(session)}
    finally:
        database.dispose()


def _print(found: dict[str, Any]) -> None:
    if not found["is_running"]:
        typer.echo(f"no service is running in {found['data_dir']}; `snugnet up` starts one")
        return
    jobs = found["jobs"]
    ended = {state: count for state, count in jobs.items() if state not in GOING}
    going = {state: jobs[state] for state in GOING if state in jobs}
    facts = {
        "service": "ready" if found["is_ready"] else "not ready",
        "url": found["url"],
        "data": found["data_dir"],
        "version": found.get("version", ""),
        "agents": ", ".join(found.get("agents_connected", ())) or "none is connected",
        "open jobs": _counted(going) or "none",
        "ended jobs": _counted(ended) or "none",
        "open steps": _counted(found["open_steps"]) or "none",
        "error": found.get("error", ""),
    }
    print_facts({title: value for title, value in facts.items() if value})
    table = make_table("process", "pid", "memory, MiB")
    for process in found["processes"]:
        mebibytes = f"{process['resident_bytes'] / 2**20:.0f}"
        table.add_row(process["role"], str(process["pid"]), mebibytes)
    if table.rows:
        typer.echo()
        print_table(table)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())
