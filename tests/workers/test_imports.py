from __future__ import annotations

import subprocess
import sys


def test_the_worker_program_and_the_engine_load_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, workers.app\n"
        "import service.steps.dispatcher, service.database.migrate, service.jobs.jobs\n"
        "heavy = {'torch', 'optuna', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
