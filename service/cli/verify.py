"""The command that checks downloaded files against what was signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.errors import InvalidInput
from service.artifacts.signatures import read_public_key
from service.artifacts.verifying import MANIFEST_FILE, Verification, verify_folder
from service.cli.errors import JOB_FAILED
from service.client import Client


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A subnet, as downloaded.")],
    key: Annotated[
        list[str] | None,
        typer.Option(help="A public key that is trusted, or a file with it; give several."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A server whose keys are trusted, now and of the past.")
    ] = None,
) -> None:
    """Check that a subnet's files are those that were signed: each one's content, none missing,
    none added. What is wrong is printed, one line for each; without a key that is trusted, damage
    shows, and forgery does not."""
    found = verify_folder(_subnet_in(folder), _trusted(key or [], url))
    for problem in found.problems:
        typer.echo(problem)
    if found.problems:
        raise typer.Exit(JOB_FAILED)
    typer.echo(_verdict(found))


def _trusted(keys: list[str], url: str | None) -> set[str] | None:
    trusted = {read_public_key(key) for key in keys}
    if url is not None:
        with Client(url) as client:
            trusted |= {known.public_key for known in client.signing_keys()}
    return trusted if keys or url is not None else None


def _subnet_in(folder: Path) -> Path:
    """Raises: InvalidInput where it is the folder of a whole job."""
    targets = sorted(path.parent for path in folder.glob(f"target-*/{MANIFEST_FILE}"))
    if targets and not (folder / MANIFEST_FILE).exists():
        raise InvalidInput("folder", f"holds several subnets; give one, such as {targets[0]}")
    return folder


def _verdict(found: Verification) -> str:
    if found.is_known_key:
        return f"{found.num_files} files as they were signed by {found.key_id}"
    return (
        f"{found.num_files} files as they were signed by {found.key_id}, "
        "a key that was compared with none: give --key or --url"
    )
