"""The client that waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from search.errors import InvalidInput
from service.client.connection import CHUNK_BYTES, LONG_POLL_SECONDS, sha256_of
from service.client.devices import DeviceCalls
from service.client.errors import Corrupted, NotFound
from service.job_spec import JobSpec
from service.schemas import (
    Artifact,
    ArtifactPage,
    Evaluation,
    EvaluationPage,
    Event,
    EventPage,
    Job,
    JobPage,
    JobState,
    ServerInfo,
    SigningKey,
    SigningKeyPage,
    Upload,
)

# Of a model folder only these are needed; anything else in it stays where it is.
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


class Client(DeviceCalls):
    """All that a server offers; safe to keep for long, not to share between threads."""

    # --- jobs ------------------------------------------------------------------------------

    def submit(self, spec: JobSpec | Mapping[str, Any]) -> Job:
        body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
        return self._call(Job, "POST", "/v1/search-jobs", json=body, is_repeatable=False)

    def job(self, job_id: str) -> Job:
        return self._call(Job, "GET", f"/v1/search-jobs/{job_id}")

    def jobs(self, limit: int = 50, states: Sequence[JobState] = ()) -> list[Job]:
        """The newest; where states are named, of those alone."""
        params = {"limit": limit, "state": list(states)}
        return self._call(JobPage, "GET", "/v1/search-jobs", params=params).items

    def cancel(self, job_id: str) -> Job:
        return self._call(Job, "POST", f"/v1/search-jobs/{job_id}:cancel")

    def pause(self, job_id: str) -> Job:
        return self._call(Job, "POST", f"/v1/search-jobs/{job_id}:pause")

    def resume(self, job_id: str) -> Job:
        return self._call(Job, "POST", f"/v1/search-jobs/{job_id}:resume")

    def retry(self, job_id: str) -> Job:
        """A failed or cancelled job again, from its last checkpoint."""
        path = f"/v1/search-jobs/{job_id}:retry"
        return self._call(Job, "POST", path, is_repeatable=False)

    def extend(self, job_id: str, generations: int) -> Job:
        """A new job that goes on where the search of one that has ended stopped."""
        path = f"/v1/search-jobs/{job_id}:extend"
        body = {"generations": generations}
        return self._call(Job, "POST", path, json=body, is_repeatable=False)

    def delete(self, job_id: str) -> None:
        self._request("DELETE", f"/v1/search-jobs/{job_id}")

    def events_page(
        self, job_id: str, *, after: int = 0, limit: int = 500, wait_s: float = 0.0
    ) -> EventPage:
        """Events after `after`; waits up to `wait_s` for the first one when there is none yet."""
        return self._call(
            EventPage,
            "GET",
            f"/v1/search-jobs/{job_id}/events",
            params={"after": after, "limit": limit, "wait_s": wait_s},
            timeout_s=wait_s + 15.0,
        )

    def events(self, job_id: str, *, after: int = 0, patience_s: float = 60.0) -> Iterator[Event]:
        """Every event of the job, as they happen, until the job has ended.

        Args:
            patience_s: how long the server may be away (a restart) before `Unreachable`.
        """

        def read(after: int) -> EventPage:
            return self.events_page(job_id, after=after, wait_s=LONG_POLL_SECONDS)

        return self._follow(read, after, patience_s)

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """The job in its final state.

        Raises:
            TimeoutError: it was still running after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        after = 0
        while True:
            left = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{job_id} was still running after {timeout_s} s")
            page = self.events_page(job_id, after=after, wait_s=min(LONG_POLL_SECONDS, left))
            after = page.items[-1].seq if page.items else after
            if page.job_state.is_final and not page.more:
                return self.job(job_id)

    def evaluations(self, job_id: str) -> list[Evaluation]:
        path = f"/v1/search-jobs/{job_id}/evaluations"
        return self._call(EvaluationPage, "GET", path).items

    def artifacts(self, job_id: str) -> list[Artifact]:
        path = f"/v1/search-jobs/{job_id}/artifacts"
        return self._call(ArtifactPage, "GET", path).items

    def download(self, job_id: str, folder: Path) -> list[Path]:
        """Every artifact of the job: `target-0/...` for those of a target, the others beside it.

        A file that is there already with the right content is not fetched again.
        """
        paths = []
        for artifact in self.artifacts(job_id):
            path = _place(folder, artifact)
            if not (path.is_file() and sha256_of(path) == artifact.sha256):
                self._fetch(f"/v1/artifacts/{artifact.id}/content", path, artifact.sha256)
            paths.append(path)
        return paths

    # --- uploads ---------------------------------------------------------------------------

    def upload_folder(
        self,
        folder: Path,
        *,
        kind: Literal["model", "teacher"] = "model",
        task: str = "text-classification",
        field: str = "model.path",
    ) -> Upload:
        """Upload a model folder: its weights, config and tokenizer.

        Args:
            task: that a teacher is to teach.
            field: to blame for what is wrong with the folder.

        Raises:
            InvalidInput: the folder is missing, or lacks what a model needs.
        """
        if not folder.is_dir():
            raise InvalidInput(field, f"{str(folder)!r} is not a folder")
        files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
        if folder / "model.safetensors" not in files:
            files += sorted(folder.glob("model-*-of-*.safetensors"))
        pickles = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
        if pickles and not any(path.suffix == ".safetensors" for path in files):
            raise InvalidInput(
                field,
                f"{pickles[0].name} is a Python pickle, which can run code when it is read, so it "
                "is refused; save the weights as model.safetensors instead",
            )
        if not files:
            raise InvalidInput(field, f"{str(folder)!r} holds none of {MODEL_FILES[:2]}")
        return self._upload(kind, files, {} if kind == "model" else {"task": task})

    def upload_file(
        self,
        path: Path,
        *,
        kind: Literal["dataset", "unlabelled"] = "dataset",
        task: str = "text-classification",
        columns: Mapping[str, str | None] | None = None,
    ) -> Upload:
        """Upload a data file for a task; `columns` by role, as `DataSource` and `UnlabelledSource`
        have them."""
        if not path.is_file():
            field = "data.path" if kind == "dataset" else "unlabelled.path"
            raise InvalidInput(field, f"{str(path)!r} is not a file")
        return self._upload(kind, [path], {"task": task, **(columns or {})})

    def _upload(
        self, kind: str, paths: Iterable[Path], read_as: Mapping[str, str | None]
    ) -> Upload:
        by_name = {path.name: path for path in paths}
        files = [
            {"name": name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for name, path in by_name.items()
        ]
        body = {"kind": kind, "files": files, **read_as}
        upload = self._call(Upload, "POST", "/v1/uploads", json=body, is_repeatable=False)
        try:
            for file in upload.files:
                if not file["received"]:
                    self._send_file(upload.id, by_name[file["name"]])
            return self._call(Upload, "POST", f"/v1/uploads/{upload.id}/finalize")
        except NotFound:
            raise
        except BaseException:
            self._discard(upload.id)
            raise

    def _send_file(self, upload_id: str, path: Path) -> None:
        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

        self._request(
            "PUT",
            f"/v1/uploads/{upload_id}/files/{path.name}",
            content=chunks,
            headers={"Content-Length": str(path.stat().st_size)},
            timeout_s=300.0,
        )

    def _discard(self, upload_id: str) -> None:
        """Leave nothing behind; when even this fails, the server sweeps it up later."""
        try:
            self._http.delete(f"/v1/uploads/{upload_id}", timeout=5.0)
        except httpx.HTTPError:
            return

    # --- the server ------------------------------------------------------------------------

    def server_info(self) -> ServerInfo:
        return self._call(ServerInfo, "GET", "/v1/server-info")

    def signing_keys(self) -> list[SigningKey]:
        """Public keys by which manifests are, or were, signed; needs no API key."""
        return self._call(SigningKeyPage, "GET", "/v1/signing-keys").items

    def is_ready(self) -> bool:
        """Whether the server answers and has its database and broker; never retried."""
        try:
            return self._http.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def _place(folder: Path, artifact: Artifact) -> Path:
    parts = artifact.name.split("/")
    # The server is trusted with names no more than a user is: none may leave the folder.
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise Corrupted(f"the server sent an unsafe file name: {artifact.name!r}")
    root = folder if artifact.target_index is None else folder / f"target-{artifact.target_index}"
    return root.joinpath(*parts)
