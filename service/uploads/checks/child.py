"""The process that reads one upload: `python -m service.uploads.checks.child`, and no other.

It is told what to read on its standard input and answers with one JSON object on its standard
output. Limits and the loss of its network come before the first byte of the upload, and before the
readers are loaded.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from service.uploads.checks.limits import Limits, die_with, leave_the_network


def main() -> None:
    answer_fd = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no answer
    request = json.loads(sys.stdin.buffer.read())
    die_with(request["parent"])
    is_isolated = leave_the_network()
    Limits(**request["limits"]).apply()
    answer = {**_answer(request), "is_isolated": is_isolated}
    with os.fdopen(answer_fd, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from search.errors import InvalidInput
    from service.uploads.checks.reading import Reading, read

    reading = Reading(**request["reading"])
    try:
        return {"found": read(reading, Path(request["folder"]))}
    except InvalidInput as error:
        return {"wrong": {"field": error.field, "reason": error.reason}}
    except MemoryError:
        return {"out_of_memory": True}
    except Exception as error:  # a reader that stumbles is the file's doing all the same
        return {"stumbled": type(error).__name__, "traceback": traceback.format_exc()[-8000:]}


if __name__ == "__main__":
    main()
