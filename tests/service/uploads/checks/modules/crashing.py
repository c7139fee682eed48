"""A reader that is ended by the signal, or by the exit code, that the upload's task names."""

from __future__ import annotations

import json
import os
import signal
import sys

task = json.loads(sys.stdin.read())["reading"]["task"]
if task.isdigit():
    os._exit(int(task))
os.kill(os.getpid(), getattr(signal, task))
