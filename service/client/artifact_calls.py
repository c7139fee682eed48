"""What a job made, and how it comes here."""

from __future__ import annotations

from pathlib import Path

from service.client.calls import Call, get, path_of
from service.client.downloads import Download, OnProgress, sha256_of
from service.client.errors import Corrupted, NotFound
from service.client.plans import Plan, ask, fetch, work
from service.schemas import Artifact, ArtifactDigests, ArtifactPage

WORTH_DIGESTS_BYTES = 8 << 20  # a smaller file is as well fetched again as a whole


def artifacts(job_id: str) -> Call[list[Artifact]]:
    call = get(ArtifactPage, path_of("search-jobs", job_id, "artifacts"))
    return call.then(lambda page: page.items)


def download(
    job_id: str, folder: Path, *, on_progress: OnProgress | None = None
) -> Plan[list[Path]]:
    """Every artifact of the job: `target-0/...` for those of a target, the others beside it.

    A file that is there already with the right content is not fetched again, and one that was
    broken off, by this process or another one before it, goes on where it stopped.
    """
    paths = []
    for artifact in (yield from ask(artifacts(job_id))):
        place = _place(folder, artifact)
        paths.append((yield from download_artifact(artifact, place, on_progress=on_progress)))
    return paths


def download_artifact(
    artifact: Artifact, path: Path, *, on_progress: OnProgress | None = None
) -> Plan[Path]:
    """One of them, to `path`."""
    if (yield from work(lambda: path.is_file() and sha256_of(path) == artifact.sha256)):
        return path
    content = path_of("artifacts", artifact.id, "content")
    digests = yield from _digests(artifact)
    yield from fetch(Download(content, path, artifact.sha256, digests, on_progress))
    return path


def download_blob(sha256: str, path: Path) -> Plan[Path]:
    """For an agent: what it is to measure."""
    yield from fetch(Download(path_of("blobs", sha256), path, sha256))
    return path


def _digests(artifact: Artifact) -> Plan[ArtifactDigests | None]:
    if artifact.size_bytes <= WORTH_DIGESTS_BYTES:
        return None
    try:
        found = yield from ask(get(ArtifactDigests, path_of("artifacts", artifact.id, "digests")))
    except NotFound:
        return None  # of an older server; the whole is checked all the same
    return found if found.sha256 == artifact.sha256 else None


def _place(folder: Path, artifact: Artifact) -> Path:
    parts = artifact.name.split("/")
    # The server is trusted with names no more than a user is: none may leave the folder.
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise Corrupted(f"the server sent an unsafe file name: {artifact.name!r}")
    root = folder if artifact.target_index is None else folder / f"target-{artifact.target_index}"
    return root.joinpath(*parts)
