"""Commands that concern this machine: the embedded service and the measuring agent."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from typing import Annotated

import typer

from search.errors import InvalidInput
from service import embedded
from service.cli.connection import ApiKey, DataDir, Url, local_data_dir
from service.instance import DEFAULT_DATA_DIR, Instance, make_data_dir

AGENT_MODULES = ("numpy", "onnx", "onnxruntime", "psutil")


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    foreground: Annotated[bool, typer.Option(help="Stay until Ctrl-C.")] = False,
    worker: Annotated[bool, typer.Option(help="Run searches on this machine.")] = True,
    agent: Annotated[bool, typer.Option(help="Measure on this machine, as this-cpu.")] = True,
) -> None:
    """Start the service on this machine and leave it running."""
    data_dir = make_data_dir(data_dir)
    if foreground:
        argv = embedded.command(data_dir, host=host, port=port, has_worker=worker, has_agent=agent)
        os.execv(argv[0], argv)
    instance = embedded.start(data_dir, host=host, port=port, has_worker=worker, has_agent=agent)
    typer.echo(f"Snugnet is ready at {instance.url}")
    typer.echo(f"API key: {instance.api_key}")
    typer.echo("Stop it with `snugnet down`.")


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the service that `snugnet up` started, and wait until it has ended."""
    if embedded.stop(data_dir):
        typer.echo("stopped")
    else:
        typer.echo("no service was running")


def agent(
    url: Url = None,
    api_key: ApiKey = None,
    name: Annotated[str, typer.Option(help="Name of this device.")] = "this-cpu",
) -> None:
    """Offer this machine to a server as a device to measure on."""
    missing = [module for module in AGENT_MODULES if find_spec(module) is None]
    if missing:
        raise embedded.NotStarted(
            f"this installation cannot measure ({', '.join(missing)} missing); "
            "install snugnet[agent]"
        )
    local = Instance.load(local_data_dir())
    server = url or (local.url if local else None)
    if server is None:
        raise InvalidInput("--url", "no server: give --url or SNUGNET_URL")
    if api_key is None and local is not None and local.url == server:
        api_key = local.api_key
    # By the environment: other users of the machine can read a command line.
    os.environ["SNUGNET_API_KEY"] = api_key or ""
    # By name: the layers below do not import the workers.
    module = importlib.import_module("workers.agent")
    raise typer.Exit(module.main(["--server", server, "--name", name]))
