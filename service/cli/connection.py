"""Which server a command talks to: options, then the environment, then the local service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from search.errors import InvalidInput
from service.client import Client, Unreachable
from service.embedded.instance import DEFAULT_DATA_DIR, Instance
from service.secret_values import read_secret

KEY_VARIABLE = "SNUGNET_API_KEY"

Url = Annotated[str | None, typer.Option("--url", envvar="SNUGNET_URL", help="Server to talk to.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar=KEY_VARIABLE, help="Its API key.", show_envvar=True),
]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="SNUGNET_DATA_DIR", help="Folder of the local service."),
]


def local_data_dir() -> Path:
    return Path(os.environ.get("SNUGNET_DATA_DIR") or DEFAULT_DATA_DIR)


def connect(url: str | None, api_key: str | None) -> Client:
    """A client of that server.

    Raises:
        InvalidInput: no server is named, and none was ever started here.
        Unreachable: the local service was stopped.
    """
    local = Instance.load(local_data_dir())
    if url is None:
        if local is None:
            raise InvalidInput(
                "--url", "no server: give --url or SNUGNET_URL, or start one with `snugnet up`"
            )
        if local.pid is None:
            raise Unreachable("the service of this folder was stopped; start it with `snugnet up`")
        url = local.url
    if api_key is None:
        api_key = read_secret(KEY_VARIABLE)
    if api_key is None and local is not None and local.url == url.rstrip("/"):
        api_key = local.api_key
    return Client(url, api_key or "")
