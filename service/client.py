"""The SDK: everything that a program or the command line does over HTTP.

client = Client("http://127.0.0.1:8000", api_key)
model = client.upload_folder(Path("my-model"))
job = client.submit(spec)
for event in client.events(job.id):
    print(event.message)
client.download(job.id, Path("winners"))
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from search.errors import InvalidInput
from service.client_errors import (
    ApiError,
    Conflict,
    Corrupted,
    NotAllowed,
    NotFound,
    Rejected,
    Unreachable,
    error_of,
)
from service.schemas import (
    Artifact,
    ArtifactPage,
    ClaimedMeasurementJob,
    Device,
    DevicePage,
    Evaluation,
    EvaluationPage,
    Event,
    EventPage,
    Job,
    JobPage,
    JobSpec,
    ServerInfo,
    Upload,
)

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Corrupted",
    "NotAllowed",
    "NotFound",
    "Rejected",
    "Unreachable",
    "sha256_of",
]

Answered = TypeVar("Answered", bound=BaseModel)

CHUNK_BYTES = 1 << 20
LONG_POLL_SECONDS = 20.0
# Of a model folder only these are needed; anything else in it stays where it is.
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


class Client:
    """A connection to one server; safe to keep for long, not to share between threads.

    Args:
        max_tries: of a request that the network or an overloaded server ate.
        transport: another way to carry requests, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 30.0,
        max_tries: int = 5,
        backoff_s: float = 0.5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._max_tries = max_tries
        self._backoff_s = backoff_s
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidInput("url", f"{url!r} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidInput("url", f"must start with http:// or https://, got {url!r}")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            transport=transport,
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(parsed.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- jobs ------------------------------------------------------------------------------

    def submit(self, spec: JobSpec | Mapping[str, Any]) -> Job:
        body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
        return self._call(Job, "POST", "/v1/search-jobs", json=body, is_repeatable=False)

    def job(self, job_id: str) -> Job:
        return self._call(Job, "GET", f"/v1/search-jobs/{job_id}")

    def jobs(self, limit: int = 50) -> list[Job]:
        page = self._call(JobPage, "GET", "/v1/search-jobs", params={"limit": limit})
        return page.items

    def cancel(self, job_id: str) -> Job:
        return self._call(Job, "POST", f"/v1/search-jobs/{job_id}/cancel")

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
        away_since: float | None = None
        while True:
            try:
                page = self.events_page(job_id, after=after, wait_s=LONG_POLL_SECONDS)
            except Unreachable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= patience_s:
                    raise
                time.sleep(min(2.0, self._backoff_s * 2))
                continue
            away_since = None
            for event in page.items:
                after = event.seq
                yield event
            if page.job_state.is_final and not page.more:
                return

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

    def upload_folder(self, folder: Path) -> Upload:
        """Upload a model folder: its weights, config and tokenizer.

        Raises:
            InvalidInput: the folder is missing, or lacks what a model needs.
        """
        if not folder.is_dir():
            raise InvalidInput("model.path", f"{str(folder)!r} is not a folder")
        files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
        pickles = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
        if pickles and folder / "model.safetensors" not in files:
            raise InvalidInput(
                "model.path",
                f"{pickles[0].name} is a Python pickle, which can run code when it is read, so it "
                "is refused; save the weights as model.safetensors instead",
            )
        if not files:
            raise InvalidInput("model.path", f"{str(folder)!r} holds none of {MODEL_FILES[:3]}")
        return self._upload("model", files, {})

    def upload_file(self, path: Path, *, text: str = "text", label: str = "label") -> Upload:
        """Upload a data file (.csv or .jsonl) with these columns."""
        if not path.is_file():
            raise InvalidInput("data.path", f"{str(path)!r} is not a file")
        return self._upload("dataset", [path], {"text": text, "label": label})

    def _upload(self, kind: str, paths: Iterable[Path], columns: Mapping[str, str]) -> Upload:
        by_name = {path.name: path for path in paths}
        files = [
            {"name": name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for name, path in by_name.items()
        ]
        body = {"kind": kind, "files": files, **columns}
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

    # --- devices, and what their agents need -----------------------------------------------

    def devices(self) -> list[Device]:
        return self._call(DevicePage, "GET", "/v1/devices").items

    def register_device(self, name: str, identity: Mapping[str, Any]) -> Device:
        """Make the device known, or say that it is still there."""
        body = {"name": name, "identity": dict(identity)}
        return self._call(Device, "POST", "/v1/devices", json=body)

    def claim_measurement_job(
        self, device_id: str, *, wait_s: float = LONG_POLL_SECONDS
    ) -> ClaimedMeasurementJob | None:
        """The device's next work, or None when none came up within `wait_s`."""
        response = self._request(
            "POST",
            f"/v1/devices/{device_id}/measurement-jobs/claim",
            params={"wait_s": wait_s},
            timeout_s=wait_s + 15.0,
            is_repeatable=False,
        )
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        return _parse(ClaimedMeasurementJob, response)

    def renew_measurement_job(self, measurement_job_id: str, token: int) -> None:
        """Raises: Conflict when the lease was lost: then let go of the work."""
        self._request(
            "POST", f"/v1/measurement-jobs/{measurement_job_id}/renew", json={"token": token}
        )

    def report_result(
        self, measurement_job_id: str, token: int, result: Mapping[str, Any]
    ) -> None:
        body = {"token": token, "result": dict(result)}
        self._request("POST", f"/v1/measurement-jobs/{measurement_job_id}/result", json=body)

    def report_failure(self, measurement_job_id: str, token: int, code: str, message: str) -> None:
        body = {"token": token, "code": code, "message": message[:4000]}
        self._request("POST", f"/v1/measurement-jobs/{measurement_job_id}/failure", json=body)

    def download_blob(self, sha256: str, path: Path) -> Path:
        return self._fetch(f"/v1/blobs/{sha256}", path, sha256)

    # --- the server ------------------------------------------------------------------------

    def server_info(self) -> ServerInfo:
        return self._call(ServerInfo, "GET", "/v1/server-info")

    def is_ready(self) -> bool:
        """Whether the server answers and has its database and broker; never retried."""
        try:
            return self._http.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    # --- requests --------------------------------------------------------------------------

    def _call(self, answer: type[Answered], method: str, path: str, **options: Any) -> Answered:
        return _parse(answer, self._request(method, path, **options))

    def _request(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None = None,
        is_repeatable: bool = True,
        content: Any = None,
        **options: Any,
    ) -> httpx.Response:
        """Send, and send again with growing, jittered pauses.

        What is not repeatable is only sent again when it certainly was not carried out.
        """
        if timeout_s is not None:
            options["timeout"] = httpx.Timeout(timeout_s, connect=5.0)
        for tried in range(1, self._max_tries + 1):
            try:
                body = content() if content is not None else None
                response = self._http.request(method, path, content=body, **options)
            except httpx.TransportError as error:
                was_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if tried == self._max_tries or not (is_repeatable or was_unsent):
                    raise Unreachable(f"no answer from {self.url}: {_cause(error)}") from None
                self._pause(tried, None)
                continue
            except ValueError as error:  # NaN, for one, has no JSON
                raise InvalidInput("request", str(error)) from None
            is_busy = response.status_code in (429, 503)
            is_broken = response.status_code >= 500 and is_repeatable
            if tried < self._max_tries and (is_busy or is_broken):
                self._pause(tried, response.headers.get("Retry-After"))
                continue
            if response.is_error:
                raise error_of(response)
            return response
        raise AssertionError("unreachable: the last try returns or raises")

    def _pause(self, tried: int, retry_after: str | None) -> None:
        if retry_after is not None and retry_after.isdigit():
            time.sleep(min(60.0, float(retry_after)))
        else:
            time.sleep(min(10.0, self._backoff_s * 2 ** (tried - 1)) * random.uniform(0.5, 1.0))

    def _fetch(self, url: str, path: Path, sha256: str) -> Path:
        """Download into a temporary file beside `path`, compare the hash, then rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for tried in range(1, self._max_tries + 1):
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".download-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    received = self._stream(url, file.write)
                if received != sha256:
                    raise Corrupted(f"{path.name} arrived with another SHA-256 than announced")
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except (httpx.TransportError, Corrupted) as error:
                if tried == self._max_tries:
                    if isinstance(error, Corrupted):
                        raise
                    raise Unreachable(f"no answer from {self.url}: {_cause(error)}") from None
                self._pause(tried, None)
            else:
                return path
            finally:
                Path(temporary).unlink(missing_ok=True)
        raise AssertionError("unreachable: the last try returns or raises")

    def _stream(self, url: str, write: Any) -> str:
        digest = hashlib.sha256()
        with self._http.stream("GET", url) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                digest.update(chunk)
                write(chunk)
        return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(answer: type[Answered], response: httpx.Response) -> Answered:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError:
        raise Unreachable(f"{response.url} did not answer as a Snugnet server does") from None


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _place(folder: Path, artifact: Artifact) -> Path:
    parts = artifact.name.split("/")
    # The server is trusted with names no more than a user is: none may leave the folder.
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise Corrupted(f"the server sent an unsafe file name: {artifact.name!r}")
    root = folder if artifact.target_index is None else folder / f"target-{artifact.target_index}"
    return root.joinpath(*parts)
