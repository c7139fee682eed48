"""The thread that sends webhook messages, again and again until somebody takes them.

Any number of them may run beside each other: an attempt is claimed by one of them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from sqlalchemy import select, update

from search.errors import InvalidInput
from service.database.db import Database, epoch_now
from service.database.models import Webhook, WebhookDelivery
from service.steps.outbox import add_sleeper, remove_sleeper
from service.telemetry import metrics
from service.webhooks.public_address import Resolve, public_address, resolve
from service.webhooks.webhooks import body_of, signature

logger = logging.getLogger(__name__)

DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 3600, 3600)
"""Between one attempt and the next; after the last one the message has failed."""
MAX_ATTEMPTS = len(DELAYS_SECONDS) + 1
TIMEOUT_SECONDS = 5.0
CLAIM_SECONDS = 60.0
POLL_SECONDS = 5.0
NUM_AT_ONCE = 4
MAX_ANSWER_BYTES = 64 * 1024
GONE = 410


@dataclass(frozen=True, slots=True)
class _Claimed:
    delivery: WebhookDelivery
    url: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: int | None
    error: str | None

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSender:
    def __init__(
        self,
        database: Database,
        private_hosts: Collection[str],
        *,
        look_up: Resolve = resolve,
        verify: bool | str = True,
    ) -> None:
        self._database = database
        self._private_hosts = private_hosts
        self._look_up = look_up
        # No proxy of the environment: it would connect to a name, not to the address.
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, verify=verify)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        add_sleeper(self._wake)
        self._thread.start()

    def stop(self) -> None:
        """End after the attempts at hand."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        remove_sleeper(self._wake)
        self._http.close()

    def _run(self) -> None:
        with ThreadPoolExecutor(NUM_AT_ONCE, thread_name_prefix="webhook") as pool:
            while not self._stopping:
                self._wake.clear()
                try:
                    list(pool.map(self._attempt, self._due()))
                except Exception:  # a dead sender would tell nobody anything any more
                    logger.exception("sending webhooks failed; the next round tries again")
                self._wake.wait(POLL_SECONDS)

    def run_once(self) -> None:
        """Everything that is due, one after the other."""
        for delivery_id in self._due():
            self._attempt(delivery_id)

    def _due(self) -> list[str]:
        query = select(WebhookDelivery.id).where(
            WebhookDelivery.state == "pending", WebhookDelivery.next_attempt_at <= epoch_now()
        )
        with self._database.read() as session:
            return list(
                session.scalars(query.order_by(WebhookDelivery.next_attempt_at).limit(100))
            )

    def _attempt(self, delivery_id: str) -> None:
        if self._stopping:
            return
        claimed = self._claim(delivery_id)
        if claimed is not None:
            outcome = self._send(claimed)
            label = "taken" if outcome.is_taken else "refused"
            metrics.WEBHOOK_ATTEMPTS.labels(label).inc()
            self._record(claimed, outcome)

    def _claim(self, delivery_id: str) -> _Claimed | None:
        with self._database.write() as session:
            delivery = session.scalars(
                update(WebhookDelivery)
                .where(
                    WebhookDelivery.id == delivery_id,
                    WebhookDelivery.state == "pending",
                    WebhookDelivery.next_attempt_at <= epoch_now(),
                )
                .values(
                    num_attempts=WebhookDelivery.num_attempts + 1,
                    next_attempt_at=epoch_now() + CLAIM_SECONDS,
                )
                .returning(WebhookDelivery)
                .execution_options(synchronize_session=False, populate_existing=True)
            ).one_or_none()
            if delivery is None:
                return None
            webhook = session.get_one(Webhook, delivery.webhook_id)
            now = session.execute(select(epoch_now())).scalar_one()
            old = webhook.old_secret if (webhook.old_secret_until or 0.0) > now else None
            return _Claimed(delivery, webhook.url, tuple(filter(None, (webhook.secret, old))))

    def _send(self, claimed: _Claimed) -> _Outcome:
        """Raises nothing: what went wrong is the outcome."""
        body, timestamp_s = body_of(claimed.delivery), int(time.time())
        message_id = claimed.delivery.id
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "snugnet-webhooks",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(claimed.secrets, message_id, timestamp_s, body),
        }
        try:
            address = public_address(claimed.url, self._private_hosts, self._look_up)
            url = httpx.URL(claimed.url)
            request = self._http.build_request(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={**headers, "Host": url.netloc.decode()},
                extensions={"sni_hostname": url.host},
            )
            response = self._http.send(request, stream=True)
            try:
                _read_some(response)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, InvalidInput) as error:
            return _Outcome(None, f"{type(error).__name__}: {error}"[:500])
        told = None if response.is_success else f"answered {response.status_code}"
        return _Outcome(response.status_code, told)

    def _record(self, claimed: _Claimed, outcome: _Outcome) -> None:
        delivery, num_attempts = claimed.delivery, claimed.delivery.num_attempts
        values: dict[str, object] = {"status": outcome.status, "error": outcome.error}
        is_gone = outcome.status == GONE
        if outcome.is_taken:
            values |= {"state": "delivered", "finished_at": epoch_now()}
        elif is_gone or num_attempts >= MAX_ATTEMPTS:
            values |= {"state": "failed", "finished_at": epoch_now()}
        else:
            delay_s = DELAYS_SECONDS[num_attempts - 1] * random.uniform(0.8, 1.2)
            values |= {"next_attempt_at": epoch_now() + delay_s}
        with self._database.write() as session:
            session.execute(
                update(WebhookDelivery)
                .where(
                    WebhookDelivery.id == delivery.id,
                    WebhookDelivery.state == "pending",
                    WebhookDelivery.num_attempts == num_attempts,
                )
                .values(values)
                .execution_options(synchronize_session=False)
            )
            if is_gone:  # who answers so wants no more of them
                session.execute(
                    update(Webhook)
                    .where(Webhook.id == delivery.webhook_id)
                    .values(is_active=False)
                    .execution_options(synchronize_session=False)
                )


def _read_some(response: httpx.Response) -> None:
    """Nobody is told what it says, and an endless answer is cut off."""
    num_bytes = 0
    for chunk in response.iter_raw():
        num_bytes += len(chunk)
        if num_bytes > MAX_ANSWER_BYTES:
            return
