"""Settings of the server side, each from an environment variable `SNUGNET_<NAME>`, or from the
file that `SNUGNET_<NAME>_FILE` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.secret_values import passwords_of, read_secret, redacted_url

PREFIX = "SNUGNET_"
URLS = ("database_url", "broker_url")


class _Files(PydanticBaseSettingsSource):
    """`SNUGNET_<NAME>_FILE`: container engines hand secrets out as files."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return read_secret(PREFIX + field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in fields.items()
            if f"{PREFIX}{name.upper()}_FILE" in os.environ
        }
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """One object for the API, the dispatcher and the workers; `database_url` and `broker_url`
    default to places inside `data_dir`, as the embedded service has them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # URLs with their passwords would be part of the message
        use_attribute_docstrings=True,  # docs/reference/configuration.md is made of them
    )

    data_dir: Path = Path(".snugnet")
    """Everything that this process keeps: the embedded service's database, files and logs; of a
    worker its scratch and copies of files."""
    database_url: str = Field(default="", repr=False)
    """As SQLAlchemy has it, `postgresql+psycopg://user:password@host/name`; the default is a file
    of SQLite in `data_dir`."""
    broker_url: str = Field(default="", repr=False)
    """`redis://`, `rediss://` or `redis+socket://`; the default is a socket in `data_dir`."""
    artifacts_url: str = ""
    """Where files are kept: `s3://bucket/prefix`, `file:///folder`, or a folder of `data_dir`."""
    s3_endpoint_url: str | None = None
    """Of an S3-compatible server; credentials come by the standard AWS_* variables."""
    cache_bytes: int = Field(default=10 * 1024**3, gt=0)
    """Copies of files from S3 that a machine keeps at most, beside those in use."""
    signing_key_file: Path | None = None
    """An Ed25519 private key in PEM; a host that is given none makes its own in `data_dir`."""
    reserve_bytes: int = Field(default=256 * 1024**2, ge=0)
    """What files must leave free on a disk, for the database and the logs."""

    runs_dispatcher: bool = True
    """The API sends wake-ups and webhooks, and collects garbage, itself; not where `snugnet
    dispatcher` does."""

    runs_checks: bool = True
    """The API checks and fetches uploads itself; not where `snugnet checker` does."""

    step_seconds: float = Field(default=45.0, gt=0)
    """A slice of training ends with a checkpoint after this time."""
    step_limit_seconds: float = Field(default=300.0, gt=0)
    """A step that runs longer than this is stopped and counts as failed."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """A step whose worker has been silent for so long is given to another one."""
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    """How often a worker renews its leases; at most half of `lease_seconds`."""
    reconcile_seconds: float = Field(default=5.0, gt=0)
    """How often the dispatcher looks for leases that ran out and wakes whose turn it is."""
    retry_backoff_seconds: float = Field(default=2.0, ge=0)
    """Wait before the second attempt of a step; doubled for each further one."""
    put_off_seconds: float = Field(default=30.0, ge=0)
    """How long a step waits for a store that is full or away; the attempt does not count."""

    calls_per_second: int = Field(default=300, ge=0)
    """Of one API key at one API process, twice as many at once; 0 is any number."""

    webhook_private_hosts: tuple[str, ...] = ()
    """Hosts inside of private networks that webhooks may be sent to, by http too."""

    drift_check_hours: float = Field(default=24.0, ge=0)
    """How often the anchors of a device that is online are measured again; 0 is never."""

    gc_hours: float = Field(default=24.0, ge=0)
    """How often what nobody needs is deleted (`snugnet gc`); 0 is never."""
    gc_grace_hours: float = Field(default=24.0, ge=0)
    """Files that no row knows are left alone for so long: they may be on their way."""
    keep_succeeded_days: float = Field(default=30.0, ge=0)
    """A job that succeeded keeps its checkpoints for so long; 0 is for ever. Afterwards it cannot
    be extended, and its supernet cannot be searched again; its artifacts stay."""
    keep_unfinished_days: float = Field(default=30.0, ge=0)
    """The same of a job that failed or was cancelled; afterwards it cannot be tried again."""
    keep_deliveries_days: float = Field(default=30.0, ge=0)
    """The log of a webhook shows what was delivered, or given up, for so long; 0 is for ever."""

    check_processes: int = Field(default=2, ge=1, le=64)
    """Uploads that are read at a time, each by a process of its own."""
    check_memory_bytes: int = Field(default=4 * 1024**3, ge=256 * 1024**2)
    """What such a process may hold; a file that needs more is refused."""
    check_seconds: float = Field(default=300.0, gt=0)
    """How long it may take; a file that needs longer is refused."""
    allow_hub: bool = False
    """Whether models and data may be named by where a public hub has them; the server fetches
    them then, from `HF_ENDPOINT`, and needs the package huggingface_hub."""
    fetch_processes: int = Field(default=1, ge=1, le=16)
    """Uploads that are fetched from a hub at a time."""
    fetch_seconds: float = Field(default=6 * 3600.0, gt=0)
    """After this time fetching is given up."""

    step_handlers: dict[str, str] = Field(default_factory=dict)
    """Step kind -> `module:function`, over the built-in table."""
    quiet_lock: Path | None = None
    """A file that steps hold shared and a measuring agent on the same machine exclusively."""
    worker_is_here: bool = False
    """Workers have this server's packages: what those cannot export is refused at submission."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one training process; all cores when not set."""
    search_workers: int = Field(default=1, ge=1, le=256)
    """Into how many parts the evaluations of a generation are cut, for as many workers; the same
    networks are found whatever it is."""

    log_format: Literal["text", "json"] = "text"
    """Of the lines on standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    log_requests: bool = False
    """One line for each request that was answered."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where a worker or a dispatcher serves its metrics; the API has them at `/metrics`."""
    metrics_host: str = "127.0.0.1"
    """The address that `metrics_port` is opened on."""
    metrics_key: SecretStr | None = None
    """Needed to read the metrics; without one, only this machine may."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Files(settings_cls)

    @field_validator("artifacts_url")
    @classmethod
    def _check_artifacts_url(cls, url: str) -> str:
        parts = urlsplit(url)
        is_place = (parts.scheme == "s3" and parts.netloc) or (
            parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
        )
        if url and not is_place:
            raise ValueError(f"must be s3://bucket/prefix or file:///folder, got {url!r}")
        return url

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("lease_seconds must be at least twice heartbeat_seconds")
        return self

    @model_validator(mode="after")
    def _fill_places(self) -> Self:
        root = self.data_dir.expanduser().resolve()
        object.__setattr__(self, "data_dir", root)
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{root / 'snugnet.db'}")
        if not self.broker_url:
            object.__setattr__(self, "broker_url", f"redis+socket://{root / 'valkey.sock'}")
        return self

    def redacted(self) -> dict[str, Any]:
        """Every value as JSON, fit to be shown."""
        values = self.model_dump(mode="json")
        for name in URLS:
            values[name] = redacted_url(values[name])
        return values

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not stand in any log."""
        found = [secret for name in URLS for secret in passwords_of(getattr(self, name))]
        key = self.metrics_key
        return (*found, key.get_secret_value()) if key is not None else tuple(found)

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def scratch_dir(self) -> Path:
        return self.data_dir / "scratch"
