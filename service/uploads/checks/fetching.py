"""Uploads that a hub has: their files come file by file, each into the store as it arrives.

The first thing that is noted is the commit: whatever happens to the process and to the branch, the
files are of this one. A file that has arrived is not fetched again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from search.data.dataset import MAX_FILE_BYTES
from search.errors import InvalidInput, SnugnetError
from service.artifacts import blobs
from service.database.db import Database
from service.database.models import Upload, UploadFile
from service.settings import Settings
from service.steps.step_types import LeaseLost
from service.store.digest import Digest, digest_of
from service.store.protocol import ArtifactStore
from service.tenants.tenants import QuotaExceeded, check_bytes
from service.uploads import uploads
from service.uploads.checks import leases
from service.uploads.checks.holding import Holding
from service.uploads.checks.inspector import Ticks, run
from service.uploads.checks.leases import CHECKING
from service.uploads.checks.limits import Limits
from service.uploads.upload_schemas import MAX_FILE_BYTES as MAX_MODEL_FILE_BYTES

ENDPOINT = "HF_ENDPOINT"
# How the network is reached from here is the operator's to say.
NETWORK_VARIABLES = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
HUB_VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # Plain HTTP, which a mirror speaks too.
    "HF_HUB_DISABLE_XET": "1",
}
UNFINISHED = ".cache/huggingface/download/**/*.incomplete"
MEMORY_BYTES = 2 * 1024**3


class FetchFailed(SnugnetError):
    """The hub was not reached, or broke off: another try may do."""

    code = "fetch_failed"


class Fetcher:
    def __init__(self, settings: Settings, *, database: Database, store: ArtifactStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store

    def fetch(self, holding: Holding) -> None:
        """Bring an upload's files here, for the check that follows.

        Raises:
            InvalidInput: there is no such thing on the hub, or nothing that is taken from there.
            FetchFailed: it may work another time.
        """
        upload_id = holding.lease.upload_id
        with self._database.read() as session:
            upload = uploads.get_upload(session, upload_id)
        self._settings.scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{os.getpid()}-check-", dir=self._settings.scratch_dir
        ) as folder:
            arrival = _Arrival(upload, Path(folder), holding, self._database, self._store)
            hub = upload.hub or {}
            # First a look alone: what may not be had is not begun.
            self._run(upload, arrival, revision=hub["commit"] or hub["revision"], names=None)
            self._run(upload, arrival, revision=arrival.commit, names=arrival.missing)
        with self._database.write() as session:
            leases.settle(session, holding.lease, CHECKING, progress=None)

    def _run(
        self, upload: Upload, arrival: _Arrival, *, revision: str, names: list[str] | None
    ) -> None:
        hub = upload.hub or {}
        is_data = upload.kind in ("dataset", "unlabelled")
        limits = Limits(
            memory_bytes=MEMORY_BYTES,
            seconds=self._settings.fetch_seconds,
            file_bytes=MAX_FILE_BYTES if is_data else MAX_MODEL_FILE_BYTES,
        )
        request = {
            "parent": os.getpid(),
            "limits": asdict(limits),
            "repo_type": "dataset" if is_data else "model",
            "repo": hub["repo"],
            "revision": revision,
            "file": hub["file"],
            "names": names,
            "endpoint": os.environ.get(ENDPOINT) or None,
            "folder": str(arrival.folder),
        }
        arrival.is_done = False
        kept = {name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ}
        _, code = run(
            "service.uploads.checks.fetch_child",
            request,
            Ticks(limits.seconds, self._settings.heartbeat_seconds, arrival.is_wanted),
            environment={**kept, **HUB_VARIABLES, "HF_HOME": str(arrival.folder / ".home")},
            on_output=arrival.on_output,
        )
        if code or not arrival.is_done:
            raise FetchFailed(f"fetching {hub['repo']} ended with code {code}")


class _Arrival:
    """What the fetching process tells, line by line, and what follows from it.

    Attributes:
        commit: that the revision points to.
        missing: names of its files that have not arrived.
    """

    def __init__(
        self,
        upload: Upload,
        folder: Path,
        holding: Holding,
        database: Database,
        store: ArtifactStore,
    ) -> None:
        self.folder = folder
        self.is_done = False
        self.commit = ""
        self.missing: list[str] = []
        self._upload = upload
        self._holding = holding
        self._database = database
        self._store = store
        self._unread = b""
        self._announced: dict[str, dict[str, Any]] = {}
        self._arrived_bytes = 0
        self._noted_bytes = -1

    def on_output(self, piece: bytes) -> None:
        *lines, self._unread = (self._unread + piece).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "wrong" in told:
                raise InvalidInput(told["wrong"]["field"], told["wrong"]["reason"])
            if "commit" in told:
                self._begin(told["commit"], told["files"], told["others"])
            elif "arrived" in told:
                self._store_file(told["arrived"])
            else:
                self.is_done = True

    def is_wanted(self) -> bool:
        """Tell how far it is, as often as that is asked. Raises: LeaseLost."""
        self._note_progress()
        return self._holding.is_wanted()

    def _begin(self, commit: str, files: list[dict[str, Any]], others: Iterable[str]) -> None:
        self.commit = commit
        self._announced = {file["name"]: file for file in files}
        self._check_files(others)
        hub = {**(self._upload.hub or {}), "commit": commit}
        with self._database.write() as session:
            leases.note(session, self._holding.lease, hub=hub)
            here = {f.name for f in uploads.files_of(session, self._upload.id) if f.received}
            self.missing = [name for name in self._announced if _short(name) not in here]
            more = sum(self._announced[name]["size_bytes"] for name in self.missing)
            self._arrived_bytes = sum(file["size_bytes"] for file in files) - more
            try:
                check_bytes(session, self._upload.tenant_id, more)
            except QuotaExceeded as error:
                raise InvalidInput("hub", error.detail) from None
        self._note_progress()

    def _check_files(self, others: Iterable[str]) -> None:
        is_data = self._upload.kind in ("dataset", "unlabelled")
        if is_data and not self._announced:
            found = ", ".join(others) or "no file"
            raise InvalidInput("hub.file", f"is not in the repository; beside it are {found}")
        if not is_data:
            uploads.check_model_names([*self._announced, *_pickles(others, self._announced)])
        limit = MAX_FILE_BYTES if is_data else MAX_MODEL_FILE_BYTES
        for name, file in self._announced.items():
            if file["size_bytes"] > limit:
                raise InvalidInput(name, f"has more than {limit} bytes")

    def _store_file(self, name: str) -> None:
        path, announced = self.folder / name, self._announced[name]
        digest = digest_of(path)
        if (
            announced["sha256"] not in (None, digest.sha256)
            or digest.size_bytes != announced["size_bytes"]
        ):
            raise FetchFailed(f"{name} arrived as something else than the hub announced")
        # Named before it is put, as every blob.
        self._name(name, digest, received=False)
        try:
            self._store.put(path, digest.sha256)
            self._name(name, digest, received=True)
        except LeaseLost:
            blobs.delete_unnamed(self._database, self._store, [digest.sha256])
            raise
        path.unlink()
        self._arrived_bytes += digest.size_bytes

    def _name(self, name: str, digest: Digest, *, received: bool) -> None:
        with self._database.write() as session:
            leases.note(session, self._holding.lease)
            blobs.take(session, digest.sha256)
            if received:
                blobs.describe(session, digest)
            session.merge(
                UploadFile(
                    upload_id=self._upload.id,
                    name=_short(name),
                    size_bytes=digest.size_bytes,
                    sha256=digest.sha256,
                    received=received,
                )
            )

    def _note_progress(self) -> None:
        total = sum(file["size_bytes"] for file in self._announced.values())
        done = min(total, self._arrived_bytes + _size_bytes(self.folder, self._announced))
        if self._announced and done != self._noted_bytes:
            self._holding.note(progress={"done": done, "total": total, "unit": "bytes"})
            self._noted_bytes = done


def _short(name: str) -> str:
    """Files of data may stand in a folder of the repository."""
    return PurePosixPath(name).name


def _pickles(others: Iterable[str], taken: Iterable[str]) -> list[str]:
    """What is told where weights are missing: a pickle that is there instead."""
    if any(name.endswith(".safetensors") for name in taken):
        return []
    return [name for name in others if name.endswith(".bin")]


def _size_bytes(folder: Path, names: Iterable[str]) -> int:
    """Of what has come of these files: whole, or as the library keeps it until then."""
    total = 0
    for path in (*(folder / name for name in names), *folder.glob(UNFINISHED)):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
