"""What travels over HTTP about uploads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from service.schemas import Answer, DataColumns, FieldError, JobProgress, Sha256, Strict, TaskName
from service.validation import WrongField

# No leading slash or dot: a name that is safe to store and to show.
# Images that a listing names may stand in folders below it.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}"
FileName = Annotated[str, StringConstraints(pattern=rf"^{_PART}(/{_PART}){{0,3}}$")]

MAX_FILE_BYTES = 8 * 1024**3
MAX_UPLOAD_FILES = 10_001
"""Of a listing and its images; a model has far fewer."""


class UploadFile(Strict):
    name: FileName
    size_bytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: Sha256


# Of ASCII: a counted `\w`, which knows all of Unicode, takes megabytes in each model that has one.
_REPO_PART = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,95}"
RepoName = Annotated[str, StringConstraints(pattern=rf"^{_REPO_PART}(/{_REPO_PART})?$")]
Revision = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*([./][A-Za-z0-9_\-]+)*$", max_length=200
    ),
]


class HubSource(Strict):
    """What a public hub has."""

    repo: RepoName
    """As `org/name`."""

    revision: Revision = "main"
    """A commit; of a branch or a tag, the commit that it points to when it is looked up."""

    file: FileName | None = None
    """Of data: the one file that is taken, by its path in the repository."""


class NewUpload(DataColumns):
    kind: Literal["model", "teacher", "dataset", "unlabelled"]
    """A model to compress, a teacher (which may be a network that a job delivered), labelled data,
    or rows without labels."""

    files: list[UploadFile] = Field(default_factory=list, max_length=MAX_UPLOAD_FILES)
    """What is going to be sent. Either this or `hub`."""

    hub: HubSource | None = None
    """What the server is to fetch, where `server-info` says that it may."""

    task: TaskName = "text-classification"
    """Of all but a model: what it is to be read for, or to teach. Columns are those of data."""

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if bool(self.files) == (self.hub is not None):
            raise WrongField("files", "give exactly one of files and hub")
        is_data = self.kind in ("dataset", "unlabelled")
        if self.hub is not None and is_data != (self.hub.file is not None):
            reason = (
                "must name a file" if is_data else "is for data; of a model all files are taken"
            )
            raise WrongField("hub.file", reason)
        return self

    @model_validator(mode="after")
    def _names_each_file_once(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise WrongField("files", "each name may be given only once")
        return self


class Upload(Answer):
    id: str
    kind: str
    state: str
    """open, fetching, checking, ready, failed."""

    files: list[dict[str, Any]] = Field(default_factory=list)
    """Name, size_bytes, sha256 and `received` of each file; of one that arrives in chunks,
    `chunks_received` too, the indices of those that are there."""

    chunk_bytes: int = 8 * 1024**2
    """Of every chunk of a file but the last."""

    summary: dict[str, Any] | None = None
    error: FieldError | None = None
    """Why it failed."""

    hub: dict[str, Any] | None = None
    """Where it is fetched from; `commit` as soon as it is known."""

    progress: JobProgress | None = None
    """Of fetching."""

    created_at: float
