"""Another site, with a page that sends a form of ours in the name of whoever looks at it."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def hostile_page(action: str, fields: Mapping[str, str]) -> Iterator[int]:
    """Its port."""
    inputs = "".join(
        f'<input name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in fields.items()
    )
    page = f'<form method="post" action="{action}">{inputs}<button>Win a prize</button></form>'

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
