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
        """Rows of the word table as it is built: all where the head answers with each of them."""
        if self.shape.task == "language-modelling":
            return self.shape.vocab_size
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


Inputs = dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]]


def example_inputs(network: Network, workload: Workload) -> Inputs:
    """Inputs of a network's file, the same at every call: tokens that are all real, or pixels.

    In phase `decode` they are one token a sequence and a cache of `seq_len` tokens.
    """
    rng, shape, batch = np.random.default_rng(0), network.shape, workload.batch_size
    if shape.reads_images:
        size = (batch, shape.num_channels, shape.image_size, shape.image_size)
        return {"pixel_values": rng.standard_normal(size, dtype=np.float32)}
    is_decoding = workload.phase == "decode"
    num_read = 1 if is_decoding else workload.seq_len
    num_seen = workload.seq_len + 1 if is_decoding else workload.seq_len
    inputs: Inputs = {
        "input_ids": rng.integers(0, network.num_token_ids, (batch, num_read)),
        "attention_mask": np.ones((batch, num_seen), dtype=np.int64),
    }
    if shape.has_token_type_input:
        inputs["token_type_ids"] = np.zeros((batch, num_read), dtype=np.int64)
    return inputs | (_cache(network, workload, rng) if is_decoding else {})


def _cache(network: Network, workload: Workload, rng: np.random.Generator) -> Inputs:
    """Of the network's own sizes; of a file that nobody described, those of the whole model."""
    shape = network.shape
    subnet = network.subnet or SubnetConfig.full(shape)
    cache: Inputs = {}
    for layer, num_heads in enumerate(subnet.num_heads):
        num_kv = num_heads // shape.queries_per_group
        size = (workload.batch_size, num_kv, workload.seq_len, shape.head_dim)
        for part in ("key", "value"):
            cache[f"past_key_values.{layer}.{part}"] = rng.standard_normal(size, dtype=np.float32)
    return cache
