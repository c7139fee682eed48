"""What `snugnet devices show` says of a device, in tables and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from search.errors import SnugnetError
from service.cli.tables import make_table, print_facts, print_table, utc
from service.client import Client
from service.devices.device_schemas import Device, MeasuringSession, Predictor

NUM_SESSIONS = 200  # of which the anchors are drawn
NUM_SESSIONS_SHOWN = 10
MAX_ROWS = 500  # of one page
MAX_BLOCKS_NAMED = 3  # the API has them all
FIT_SHARES = {
    "mape": "MAPE",
    "within_5": "within 5 %",
    "within_10": "within 10 %",
    "coverage": "coverage",
    "interval_half_width": "half-width",
    "noise_floor": "noise floor",
    "depth_only_mape": "by depth only",
    "flops_only_mape": "by FLOPs only",
}
"""What the table calls the figures of a fit report that are shares."""


class CannotDraw(SnugnetError):
    """This installation lacks what drawing needs."""

    code = "cannot_draw"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReport:
    """A device, its newest predictors and its last sessions."""

    device: Device
    predictors: Sequence[Predictor]
    sessions: Sequence[MeasuringSession]

    @property
    def data(self) -> Mapping[str, Any]:
        return {
            "device": self.device,
            "predictors": self.predictors,
            "sessions": self.sessions,
        }


def read_report(client: Client, name: str) -> DeviceReport:
    device = client.device(name)
    return DeviceReport(
        device=device,
        predictors=client.predictors(device.id, latest="true", limit=MAX_ROWS).items,
        sessions=client.measuring_sessions(device.id, limit=NUM_SESSIONS_SHOWN).items,
    )


def print_report(report: DeviceReport) -> None:
    _print_device(report.device)
    _print_predictors(report.device, report.predictors)
    _print_sessions(report.sessions)


def _print_device(device: Device) -> None:
    identity = device.identity
    missing = identity.get("missing_runtimes") or {}
    lines = {
        "name": device.name,
        "id": device.id,
        "agent": state_of(device),
        "processor": identity.get("cpu_model", ""),
        "cores": identity.get("num_cores", ""),
        "memory": f"{identity.get('memory_bytes', 0) / 2**30:.1f} GiB",
        "gpus": ", ".join(identity.get("gpus") or []) or "none",
        "system": identity.get("os", ""),
        "energy": identity.get("energy_source") or "not measured",
        "fingerprint": device.fingerprint,
        "runtimes": runtimes_of(device) or "none",
        **{f"no {name}": reason for name, reason in missing.items()},
    }
    print_facts(lines)


def _print_predictors(device: Device, found: Sequence[Predictor]) -> None:
    if not found:
        typer.echo(f"\nno predictor yet; `snugnet devices onboard {device.name}` makes one")
        return
    table = make_table("predictor", "key", "version", "measured", "fitted (UTC)")
    report = make_table("on unseen networks", *FIT_SHARES.values(), "rank at equal depth")
    for predictor in found:
        # One report is of all precisions that were fitted together; each has its own within it.
        precision = predictor.predictor_key.split("/")[3]
        own = (predictor.fit_report.get("by_precision") or {}).get(precision)
        fit = own or predictor.fit_report
        table.add_row(
            predictor.id,
            predictor.predictor_key.partition("/")[2],
            str(predictor.version),
            str(fit.get("num_measurements", "")),
            utc(predictor.created_at),
        )
        report.add_row(
            predictor.id,
            *(_percent(fit.get(key)) for key in FIT_SHARES),
            _number(fit.get("spearman_equal_depth")),
        )
    for printed in (table, report):
        typer.echo()
        print_table(printed)


def _print_sessions(found: Sequence[MeasuringSession]) -> None:
    if not found:
        return
    table = make_table("session", "at (UTC)", "workload", "noise floor", "noisy blocks")
    for session in found:
        noise = _percent(session.summary.get("noise_floor"))
        table.add_row(
            session.id,
            utc(session.created_at),
            session.workload_key,
            f"{noise}, noisy" if session.is_noisy else noise,
            _noisy_blocks(session.summary),
        )
    typer.echo()
    print_table(table)


def _noisy_blocks(summary: Mapping[str, Any]) -> str:
    """Which ones of how many, and why."""
    noisy = summary.get("noisy_blocks") or []
    if not noisy:
        return "none"
    named = [f"{block.get('index')}: {block.get('reason')}" for block in noisy[:MAX_BLOCKS_NAMED]]
    more = ["..."] if len(noisy) > MAX_BLOCKS_NAMED else []
    return f"{len(noisy)} of {len(summary.get('blocks') or noisy)} ({'; '.join(named + more)})"


def draw(client: Client, device: Device, path: Path) -> None:
    try:
        from predictors.plotting import draw_device

        payloads = [
            client.predictor(device.id, predictor.id).payload
            for predictor in client.predictors(device.id, latest="true", limit=MAX_ROWS).items
        ]
        sessions = client.measuring_sessions(device.id, limit=NUM_SESSIONS).items
        draw_device(
            path,
            name=device.name,
            predictors=payloads,
            sessions=[json.loads(session.model_dump_json()) for session in sessions],
        )
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise CannotDraw(f"drawing needs {missing}; pip install 'snugnet[worker]'") from None


def runtimes_of(device: Device) -> str:
    """Agents once reported a bare version."""
    found = device.identity.get("runtimes") or {}
    versions = {
        name: info.get("version", "") if isinstance(info, dict) else info
        for name, info in found.items()
    }
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def state_of(device: Device) -> str:
    if device.retired_at is not None:
        return "retired"
    return "connected" if device.is_online else f"away since {utc(device.last_seen_at)} UTC"


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else ""


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""
