"""A reader that takes its time: it says who it is in the file that the upload's task names."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from service.uploads.checks.limits import Limits, die_with

request = json.loads(sys.stdin.read())
die_with(request["parent"])
Limits(**{**request["limits"], "file_bytes": 1000}).apply()
with Path(request["reading"]["task"]).open("a") as file:
    file.write(f"{os.getpid()}\n")
time.sleep(600)
