"""The API's description as a file: `python -m service.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from service.api.app import create_app
from service.settings import Settings
from service.steps.queue import InMemoryQueue


def document() -> str:
    """OpenAPI 3.1 of every route, the same text each time."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)), InMemoryQueue())
        return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
