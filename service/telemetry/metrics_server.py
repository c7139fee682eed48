"""`/metrics` and `/healthz` of a process that answers no other requests: dispatcher and worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from search.errors import SnugnetError
from service.settings import Settings
from service.telemetry import metrics
from service.telemetry.metrics_access import is_allowed

logger = logging.getLogger(__name__)


class PortTaken(SnugnetError):
    """Something else listens where the metrics should be."""

    code = "port_taken"


def start(settings: Settings, is_healthy: Callable[[], bool] = lambda: True) -> int | None:
    """Answer from a thread; the port, or None where the settings name none.

    Raises: PortTaken.
    """
    if settings.metrics_port is None:
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                is_well = is_healthy()
                status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, b"ok\n" if is_well else b"not well\n")
            elif self.path != "/metrics":
                self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics and /healthz\n")
            elif not is_allowed(settings, self.client_address[0], self.headers):
                self._answer(HTTPStatus.UNAUTHORIZED, b"send the key of the metrics\n")
            else:
                self._answer(HTTPStatus.OK, metrics.exposition())

        def _answer(self, status: HTTPStatus, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", metrics.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    try:
        server = ThreadingHTTPServer((settings.metrics_host, settings.metrics_port), Handler)
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise PortTaken(f"cannot serve metrics on {where}: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])
