"""Commands that concern this machine: the embedded service and the measuring agent."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from search.errors import InvalidInput
from service.cli.connection import KEY_VARIABLE, DataDir, local_data_dir
from service.cli.output import Format, Output, show, tell
from service.embedded import embedded
from service.embedded.instance import DEFAULT_DATA_DIR, Instance, make_data_dir
from service.secret_values import read_secret

AGENT_MODULES = ("numpy", "onnx", "onnxruntime", "psutil")
# What a service makes in its data directory.
DATA_NAMES = (
    ".service.json.*",
    "agent",
    "blobs",
    "cache",
    "logs",
    "metrics",
    "quiet.lock*",
    "scratch",
    "service.json",
    "service.lock",
    "signing.key*",
    "snugnet.db*",
    "valkey",
    "valkey.sock",
)


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    foreground: Annotated[bool, typer.Option(help="Stay until Ctrl-C.")] = False,
    worker: Annotated[bool, typer.Option(help="Run searches on this machine.")] = True,
    agent: Annotated[bool, typer.Option(help="Measure on this machine, as this-cpu.")] = True,
    output: Output = Format.TABLE,
) -> None:
    """Start the service on this machine and leave it running."""
    data_dir = make_data_dir(data_dir)
    if foreground:
        argv = embedded.command(data_dir, host=host, port=port, has_worker=worker, has_agent=agent)
        os.execv(argv[0], argv)
    before = Instance.load(data_dir)
    instance = embedded.start(data_dir, host=host, port=port, has_worker=worker, has_agent=agent)
    is_key_new = before is None or before.api_key != instance.api_key
    data = {"url": instance.url, "pid": instance.pid}
    if is_key_new:
        data["api_key"] = instance.api_key
    show(data, output, lambda: typer.echo(f"Snugnet is ready at {instance.url}"))
    if is_key_new and output is Format.TABLE:
        typer.echo(f"API key, shown this once: {instance.api_key}")
        tell("The commands of this machine find it in the data directory.")
    tell(f"Dashboard, to sign in to with an API key: {instance.url}/")
    tell("Stop it with `snugnet down`.")


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the service that `snugnet up` started, and wait until it has ended."""
    if embedded.stop(data_dir):
        typer.echo("stopped")
    else:
        typer.echo("no service was running")


def reset(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the service and delete all its data: jobs, results, uploads, keys."""
    data_dir = data_dir.expanduser().resolve()
    if not _made_in(data_dir):
        tell(f"there is nothing of a service in {data_dir}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("--yes", "is needed where nobody can be asked")
        typer.confirm(f"Delete everything of the service in {data_dir}?", abort=True, err=True)
    embedded.stop(data_dir)
    for path in _made_in(data_dir):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    # What is not ours stays: somebody may have chosen a folder that holds other things.
    kept = sorted(path.name for path in data_dir.iterdir())
    if not kept:
        data_dir.rmdir()
    tell(f"deleted; {data_dir} still holds {', '.join(kept)}" if kept else f"deleted {data_dir}")


def _made_in(data_dir: Path) -> list[Path]:
    return [path for name in DATA_NAMES for path in data_dir.glob(name)]


def agent(
    server: Annotated[
        str | None,
        typer.Option("--server", "--url", envvar="SNUGNET_URL", help="Server to measure for."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            "--api-key",
            envvar=KEY_VARIABLE,
            help="API key with the scope devices:measure; best given by the environment.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of this device.")] = "this-cpu",
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the agent keeps its identity.", show_default=False)
    ] = None,
) -> None:
    """Offer this machine to a server as a device to measure on."""
    missing = [module for module in AGENT_MODULES if find_spec(module) is None]
    if missing:
        raise embedded.NotStarted(
            f"this installation cannot measure ({', '.join(missing)} missing); "
            "install snugnet[agent]"
        )
    local = Instance.load(local_data_dir())
    url = server or (local.url if local else None)
    if url is None:
        raise InvalidInput("--server", "no server: give --server or SNUGNET_URL")
    if key is None:
        key = read_secret(KEY_VARIABLE)
    if key is None and local is not None and local.url == url.rstrip("/"):
        key = local.agent_key or local.api_key
    # By the environment: other users of the machine can read a command line.
    os.environ[KEY_VARIABLE] = key or ""
    argv = ["--server", url, "--name", name]
    argv += ["--state-dir", str(state_dir)] if state_dir is not None else []
    # By name: the layers below do not import the workers.
    module = importlib.import_module("workers.agent")
    raise typer.Exit(module.main(argv))
