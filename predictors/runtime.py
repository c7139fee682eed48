"""A network loaded into ONNX Runtime, with the input that it is timed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from predictors.workload import Workload


class OnnxRuntimeNetwork:
    """`run` is one forward pass; loading, tokenizing and making the input are outside of it."""

    def __init__(self, path: Path, workload: Workload, *, num_token_ids: int) -> None:
        self._session = onnxruntime.InferenceSession(
            path, _options(workload), providers=["CPUExecutionProvider"]
        )
        size = (workload.batch_size, workload.seq_len)
        self._inputs = {
            "input_ids": np.random.default_rng(0).integers(0, num_token_ids, size),
            "attention_mask": np.ones(size, dtype=np.int64),
        }

    def run(self) -> None:
        self._session.run(None, self._inputs)


def _options(workload: Workload) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait by spinning would steal time from the network that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
