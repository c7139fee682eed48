"""A measuring agent in a thread that answers at once, over HTTP, whatever becomes of the API."""

from __future__ import annotations

import threading
from typing import Any, Self

import httpx

from predictors.spec import MeasuringSpec
from tests.chaos.site import Site
from tests.service.measuring import answer

WAIT_S = 1.0


class QuickAgent:
    """Of the device `this-cpu`, until the block ends; `num_measured` results were taken."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent")
        self.num_measured = 0
        self.num_refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with self._site.http(timeout_s=30.0) as http:
            device_id = next(
                one["id"]
                for one in http.get("/v1/devices").json()["items"]
                if one["name"] == "this-cpu"
            )
            while not self._stopping.is_set():
                try:
                    self._work(http, device_id)
                except httpx.TransportError:  # the API was killed
                    continue

    def _work(self, http: httpx.Client, device_id: str) -> None:
        path = f"/v1/devices/{device_id}/measurement-jobs/claim"
        claimed = http.post(path, params={"wait_s": WAIT_S})
        if claimed.status_code != httpx.codes.OK:
            return
        work: dict[str, Any] = claimed.json()
        result = answer(MeasuringSpec.from_dict(work["spec"]))
        body = {"token": work["token"], "result": result}
        taken = http.post(f"/v1/measurement-jobs/{work['id']}/result", json=body)
        if taken.status_code == httpx.codes.NO_CONTENT:
            self.num_measured += 1
        else:
            assert taken.status_code in (409, 503), taken.text
            self.num_refused += 1
