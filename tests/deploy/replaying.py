"""A device that answers as another one did: the same job then makes the same decisions."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Self

from service.client import Client
from service.devices.device_schemas import Device

WAIT_S = 1.0


class Recording:
    """Results by what was asked, in the order in which they were given."""

    def __init__(self, answered: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        self._results: dict[str, deque[Mapping[str, Any]]] = defaultdict(deque)
        for spec, result in answered:
            self._results[_key(spec)].append(result)

    def answer(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises: LookupError when the other device was never asked this."""
        results = self._results[_key(spec)]
        if not results:
            raise LookupError(f"was not asked before: {_key(spec)[:300]}")
        return results.popleft()

    @property
    def num_left(self) -> int:
        return sum(map(len, self._results.values()))


class ReplayingAgent:
    """Speaks for `device` in a thread, until the block ends."""

    def __init__(self, url: str, key: str, device: Device, recording: Recording) -> None:
        self._client = Client(url, key)
        self._device = device
        self._recording = recording
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent")

    def __enter__(self) -> Self:
        self._device = self._client.register_device(self._device.name, self._device.identity)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            work = self._client.claim_measurement_job(self._device.id, wait_s=WAIT_S)
            if work is None:
                continue
            try:
                result = self._recording.answer(work.spec)
            except LookupError as error:
                reason = str(error)
                self._client.report_failure(work.id, work.token, "unknown", reason, retry=False)
            else:
                self._client.report_result(work.id, work.token, result)


def _key(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)
