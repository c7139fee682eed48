"""What a runtime is to the measuring code, and the networks that it is given to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from predictors.protocol import Runnable
from predictors.workload import Workload
from search.errors import SnugnetError
from search.shape import ModelShape
from search.space import SubnetConfig

# The word table of a network that is only timed: rows are read one by one, so that a table of
# 30,522 rows is as fast as one of 1,000 (measured) and takes a second longer to quantize.
NUM_TIMED_TOKEN_IDS = 1000


class RuntimeMissing(SnugnetError):
    """This machine lacks a runtime, or the provider that was asked for; the message says why."""

    code = "runtime_missing"


class LoadingFailed(SnugnetError):
    """A runtime does not accept a network; the message names both and gives its reason."""

    code = "loading_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network to time: a subnet to build with random weights, or an ONNX file as it is.

    `folder` is where a runtime that reads files may write the network; nothing outlives it.
    """

    key: str
    shape: ModelShape
    folder: Path
    subnet: SubnetConfig | None = None
    file: Path | None = None

    @property
    def num_token_ids(self) -> int:
        """Token ids that an input may hold."""
        return min(self.shape.vocab_size, NUM_TIMED_TOKEN_IDS)


class Runtime(Protocol):
    """An adapter of one inference library.

    `load` accepts a network at a workload that names this runtime, and returns it ready to run
    with `workload.threads` threads on inputs of the workload's size, all of whose tokens are
    real. Loading, tokenizing and making the input are outside of what `Runnable.run` does.

    Raises (load):
        RuntimeMissing: the workload's provider is not on this machine.
        InvalidInput: a precision or a file that this runtime does not run, by name.
        LoadingFailed: the library refuses the file.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def providers(self) -> tuple[str, ...]: ...

    @property
    def precisions(self) -> tuple[str, ...]: ...

    def load(self, network: Network, workload: Workload) -> Runnable: ...


def example_inputs(network: Network, workload: Workload) -> dict[str, npt.NDArray[np.int64]]:
    """Token ids and their mask, (batch_size, seq_len) each, the same at every call."""
    size = (workload.batch_size, workload.seq_len)
    return {
        "input_ids": np.random.default_rng(0).integers(0, network.num_token_ids, size),
        "attention_mask": np.ones(size, dtype=np.int64),
    }
