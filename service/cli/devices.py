"""Commands for devices: list, show, onboard, rename, retire."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from search.errors import InvalidInput
from service.cli.connection import ApiKey, Url, connect
from service.cli.device_report import draw, print_report, read_report, runtimes_of, state_of
from service.cli.errors import INTERRUPTED, JOB_FAILED
from service.cli.output import Format, Output, tell
from service.cli.output import show as show_data
from service.cli.tables import make_table, print_table
from service.cli.watching import watch_onboarding
from service.client import Client
from service.devices.device_schemas import Device, Onboarding
from service.jobs.jobfile import read_mapping
from service.schemas import JobState

DeviceArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a device.")]
app = typer.Typer(help="Devices that can be measured on.", invoke_without_command=True)


@app.callback()
def list_devices(
    ctx: typer.Context,
    retired: Annotated[bool, typer.Option(help="Retired ones too.")] = False,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the devices, or do something with one of them."""
    if ctx.invoked_subcommand is not None:
        return
    with connect(url, api_key) as client:
        found = client.devices(retired=retired)
    show_data(found, output, lambda: _print(found))


def _print(found: Sequence[Device]) -> None:
    table = make_table("name", "processor", "cores", "runtimes", "agent", "predictors")
    for device in found:
        table.add_row(
            device.name,
            str(device.identity.get("cpu_model", "")),
            str(device.identity.get("num_cores", "")),
            runtimes_of(device),
            state_of(device),
            str(device.num_predictors),
        )
    print_table(table)


@app.command()
def show(
    name: DeviceArgument,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw predicted against measured, intervals, and the anchors over time.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Show what a device is, and how well its latency is known."""
    with connect(url, api_key) as client:
        report = read_report(client, name)
        show_data(report.data, output, lambda: print_report(report))
        if plot is not None:
            draw(client, report.device, plot)
            tell(f"drawn: {plot}")


@app.command()
def onboard(
    name: DeviceArgument,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the unsearched model.", show_default=False)
    ] = None,
    shape: Annotated[
        Path | None,
        typer.Option(help="Its sizes instead, as YAML or JSON.", show_default=False),
    ] = None,
    runtime: Annotated[str, typer.Option()] = "onnxruntime",
    provider: Annotated[str, typer.Option()] = "cpu",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    seq_len: Annotated[int, typer.Option(min=2)] = 64,
    precision: Annotated[
        list[str] | None, typer.Option(help="Give several; all that the runtime does if none.")
    ] = None,
    budget_ms: Annotated[
        list[float] | None, typer.Option(help="Where it has to be exact; give several.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Half-width of the interval.")] = 0.05,
    max_measurements: Annotated[int, typer.Option(help="Networks of each precision.")] = 50,
    max_minutes: Annotated[float, typer.Option()] = 5.0,
    agent_timeout: Annotated[float, typer.Option(help="Seconds to wait for an agent.")] = 600.0,
    check: Annotated[bool, typer.Option("--check", help="Only look for drift.")] = False,
    watch: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Learn how fast a device runs the networks of a model's space."""
    request: dict[str, Any] = {
        "workload": {
            "runtime": runtime,
            "provider": provider,
            "threads": threads,
            "batch_size": batch_size,
            "seq_len": seq_len,
        },
        "space": {"precision": precision} if precision else {},
        "budgets_ms": budget_ms or [],
        "tolerance": tolerance,
        "max_measurements": max_measurements,
        "max_minutes": max_minutes,
        "agent_timeout_s": agent_timeout,
        "mode": "check" if check else "full",
    }
    with connect(url, api_key) as client:
        client.device(name)  # before anything is uploaded
        onboarding = client.onboard(name, {**request, **_source(client, model, shape)})
        if not watch:
            show_data(onboarding, output, lambda: typer.echo(onboarding.id))
            return
        (typer.echo if output is Format.TABLE else tell)(onboarding.id)
        _follow(client, onboarding, output)


@app.command()
def rename(
    name: DeviceArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")],
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Give a device another name; its agent and its predictors stay with it."""
    with connect(url, api_key) as client:
        device = client.rename_device(name, new_name)
    show_data(device, output, lambda: typer.echo(device.name))


@app.command()
def retire(
    name: DeviceArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Bring it back.")] = False,
    output: Output = Format.TABLE,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Measure on a device no more; what was measured stays."""
    with connect(url, api_key) as client:
        device = client.revive_device(name) if undo else client.retire_device(name)
    done = f"{device.name} is {'in use again' if undo else 'retired'}"
    show_data(device, output, lambda: typer.echo(done))


def _source(client: Client, model: Path | None, shape: Path | None) -> dict[str, Any]:
    if (model is None) == (shape is None):
        raise InvalidInput("--model", "give exactly one of --model and --shape")
    if model is not None:
        tell("uploading the model")
        return {"model": {"upload": client.upload_folder(model).id}}
    assert shape is not None
    return {"shape": read_mapping(shape)}


def _follow(client: Client, onboarding: Onboarding, output: Format) -> None:
    try:
        ended = watch_onboarding(client, onboarding.id)
    except KeyboardInterrupt:
        tell("\nThe onboarding goes on.")
        raise typer.Exit(INTERRUPTED) from None
    show_data(ended, output, lambda: None)
    if ended.state is not JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)
