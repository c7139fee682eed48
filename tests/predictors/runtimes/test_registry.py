"""What a machine says of runtimes that it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PRINT_FOUND = """
from predictors.runtimes.registry import find_runtimes
found = find_runtimes()
print(*found.available)
print(found.missing)
"""


def found_with(prelude: str = "", path: Path | None = None) -> list[str]:
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-c", prelude + PRINT_FOUND],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.splitlines()


def test_a_runtime_that_is_not_installed_is_missing_with_a_reason() -> None:
    available, missing = found_with("import sys; sys.modules['torch'] = None\n")
    assert available == "onnxruntime openvino"
    assert "torch is not installed here" in missing


def test_a_runtime_that_is_broken_is_missing_with_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise OSError('libtbb.so.12: cannot open')\n")
    available, missing = found_with("import sys; sys.modules['torch'] = None\n", tmp_path)
    assert available == "onnxruntime"
    assert "libtbb.so.12: cannot open" in missing


def test_the_registry_itself_loads_no_runtime() -> None:
    code = (
        "import sys, predictors.runtimes.registry;"
        "names = ('onnx', 'onnxruntime', 'openvino', 'torch');"
        "print([m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
