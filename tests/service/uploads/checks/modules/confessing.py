"""A reader that tells what it could get at: a port that the upload's task names, its environment,
a file that it would write."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from service.uploads.checks.limits import Limits, leave_the_network

request = json.loads(sys.stdin.read())
is_isolated = leave_the_network()
Limits(**request["limits"]).apply()
found = {"variables": sorted(os.environ)}
try:
    socket.create_connection(("127.0.0.1", int(request["reading"]["task"])), 2).close()
    found["network"] = "reached"
except OSError:
    found["network"] = "refused"
sys.stdout.write(json.dumps({"found": found, "is_isolated": is_isolated}))
sys.stdout.flush()
sys.stdout.close()
if request["reading"]["kind"] == "dataset":
    Path(request["folder"], "written").write_bytes(b"x")
