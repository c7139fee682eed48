"""Every page there is, each with what it has to bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.embedded.instance import Instance
from tests.e2e.browser.exhibition import Exhibition

if TYPE_CHECKING:
    from playwright.sync_api import StorageState


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two services with what is in them, and who is signed in to each.

    Attributes:
        device: name of the working service's device.
        subnets: paths of the pages of a finished job's networks, each once.
    """

    working: Instance
    working_state: StorageState
    showcase: Instance
    showcase_state: StorageState
    newcomer_state: StorageState
    exhibition: Exhibition
    finished: str
    unreachable: str
    device: str
    subnets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class View:
    """An address, and whoever looks at it."""

    url: str
    path: str
    state: StorageState | None


def _working(path_of: Callable[[Site], str]) -> Callable[[Site], View]:
    return lambda site: View(url=site.working.url, path=path_of(site), state=site.working_state)


def _shown(path_of: Callable[[Site], str]) -> Callable[[Site], View]:
    return lambda site: View(url=site.showcase.url, path=path_of(site), state=site.showcase_state)


def _empty(path: str) -> Callable[[Site], View]:
    return lambda site: View(url=site.showcase.url, path=path, state=site.newcomer_state)


def _subnets_compared(site: Site) -> str:
    networks = [subnet.removeprefix("/jobs/").replace("/subnets/", "/") for subnet in site.subnets]
    return "&".join(f"item={one}" for one in (site.finished, *networks))


VIEWS: Mapping[str, Callable[[Site], View]] = {
    "sign-in": lambda site: View(url=site.working.url, path="/sign-in", state=None),
    "jobs": _shown(lambda _: "/jobs"),
    "jobs-empty": _empty("/jobs"),
    "jobs-none-match": _shown(lambda _: "/jobs?name=nothing-is-called-so"),
    "new-job": _working(lambda _: "/jobs/new"),
    "new-job-empty": _empty("/jobs/new"),
    "job-finished": _working(lambda site: f"/jobs/{site.finished}"),
    "job-unreachable": _working(lambda site: f"/jobs/{site.unreachable}"),
    "job-queued-long-name": _shown(lambda site: f"/jobs/{site.exhibition.queued}"),
    "job-failed": _shown(lambda site: f"/jobs/{site.exhibition.failed}"),
    "job-none-feasible": _shown(lambda site: f"/jobs/{site.exhibition.none_feasible}"),
    "job-cancelled": _shown(lambda site: f"/jobs/{site.exhibition.cancelled}"),
    "job-one-network": _shown(lambda site: f"/jobs/{site.exhibition.one}"),
    "job-many-networks": _shown(lambda site: f"/jobs/{site.exhibition.many}"),
    "chart-many-networks": _shown(lambda site: f"/jobs/{site.exhibition.many}/charts/front"),
    "log": _working(lambda site: f"/jobs/{site.finished}/log?before=60"),
    "subnet": _working(lambda site: site.subnets[0]),
    "compare": _working(lambda _: "/compare"),
    "compare-jobs": _working(
        lambda site: f"/compare?item={site.finished}&item={site.unreachable}"
    ),
    "compare-subnets": _working(lambda site: f"/compare?{_subnets_compared(site)}"),
    "compare-empty": _empty("/compare"),
    "devices": _working(lambda _: "/devices"),
    "devices-empty": _empty("/devices"),
    "device": _working(lambda site: f"/devices/{site.device}"),
    "not-found": _shown(lambda _: "/jobs/job_that_there_is_not"),
}
