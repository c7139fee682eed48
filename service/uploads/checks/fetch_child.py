"""The process that fetches an upload from a hub: `python -m service.uploads.checks.fetch_child`.

It alone reaches the network, and reads nothing of what it fetches. Its standard output has one
JSON object a line: the commit and its files where none are named, else each that has arrived.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from service.uploads.checks.limits import Limits, die_with
from service.uploads.model_files import needed_files

Told = dict[str, Any]


def main() -> None:
    answer_fd = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    request = json.loads(sys.stdin.buffer.read())
    die_with(request["parent"])
    Limits(**request["limits"]).apply()
    with os.fdopen(answer_fd, "w") as pipe:
        for told in _guarded(request):
            pipe.write(json.dumps(told) + "\n")
            pipe.flush()


def _guarded(request: dict[str, Any]) -> Iterator[Told]:
    try:
        from huggingface_hub import errors
    except ImportError:
        yield _wrong("hub", "needs the package huggingface_hub on the server: snugnet[hub]")
        return
    repo, revision = request["repo"], request["revision"]
    try:
        yield from _look(request) if request["names"] is None else _fetch(request)
    except errors.GatedRepoError:
        yield _wrong("hub.repo", f"{repo!r} is given only to those who asked its authors")
    except errors.RevisionNotFoundError:
        yield _wrong("hub.revision", f"{repo!r} has no revision {revision!r}")
    except errors.RepositoryNotFoundError:
        yield _wrong("hub.repo", f"the hub has no public {request['repo_type']} {repo!r}")
    except errors.LocalEntryNotFoundError:
        raise  # what the library says when it cannot reach the hub
    except errors.EntryNotFoundError:
        yield _wrong("hub.file", "is not in the repository")
    except errors.HFValidationError as error:
        yield _wrong("hub.repo", str(error).splitlines()[0])


def _look(request: dict[str, Any]) -> Iterator[Told]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    # The server's own token, if it has one, is nothing that its users may fetch with.
    api = HfApi(endpoint=request["endpoint"], token=False)
    place: Told = {"repo_id": request["repo"], "repo_type": request["repo_type"]}
    commit = api.repo_info(**place, revision=request["revision"]).sha
    file = request["file"]
    folder = str(PurePosixPath(file).parent) if file else "."
    tree = api.list_repo_tree(
        **place, revision=commit, path_in_repo=None if folder == "." else folder
    )
    known = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    names = [file] if file in known else [] if file else needed_files(known)
    files = [
        {
            "name": name,
            "size_bytes": known[name].size,
            "sha256": lfs.sha256 if (lfs := known[name].lfs) else None,
        }
        for name in names
    ]
    yield {"commit": commit, "files": files, "others": sorted(set(known) - set(names))[:20]}
    yield {"done": True}


def _fetch(request: dict[str, Any]) -> Iterator[Told]:
    from huggingface_hub import hf_hub_download

    for name in request["names"]:
        hf_hub_download(
            request["repo"],
            name,
            repo_type=request["repo_type"],
            revision=request["revision"],
            local_dir=request["folder"],
            endpoint=request["endpoint"],
            token=False,
        )
        yield {"arrived": name}
    yield {"done": True}


def _wrong(field: str, reason: str) -> Told:
    return {"wrong": {"field": field, "reason": reason}}


if __name__ == "__main__":
    main()
