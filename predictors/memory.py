"""What a measuring session takes of the machine's memory, before anything of it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from predictors.runtimes.base import NUM_TIMED_TOKEN_IDS
from predictors.spec import MeasuringSpec, NetworkSpec
from search.costs import num_params, size_bytes
from search.errors import SnugnetError
from search.shape import ModelShape
from search.space import SubnetConfig

# Loaded networks may take this share of the memory that is free.
MEMORY_SHARE = 0.4

# Weights take about twice the size of their file: runtimes pack a copy of them for their kernels.
LOADED_PER_WEIGHT_BYTE = 2.2

# While a network is built: arrays, their copies in the graph, the graph written out, and read.
BUILDING_PER_WEIGHT_BYTE = 4.0
BYTES_PER_FLOAT = 4
BYTES_PER_TOKEN = 16  # ids and mask, as int64


class SpecTooLarge(SnugnetError):
    """A session's networks would exhaust this machine's memory."""

    code = "spec_too_large"

    def __init__(self, needed_bytes: int, allowed_bytes: int) -> None:
        super().__init__(
            f"its largest network, beside the anchors, needs about {needed_bytes / 1e9:.2f} GB; "
            f"this machine can spare {allowed_bytes / 1e9:.2f} GB"
        )
        self.needed_bytes = needed_bytes
        self.allowed_bytes = allowed_bytes


def loaded_bytes(spec: MeasuringSpec, network: NetworkSpec) -> int:
    """Of a network that is ready to run: its weights, packed, and its activations."""
    weights = size_bytes(_built_shape(spec, network), _subnet(spec, network))
    return int(LOADED_PER_WEIGHT_BYTE * weights) + activation_bytes(spec, network)


def activation_bytes(spec: MeasuringSpec, network: NetworkSpec) -> int:
    """The most that is alive at once in a pass: a layer's input, its widest values, its scores."""
    shape, subnet, workload = spec.shape, _subnet(spec, network), spec.workload
    heads, ffn = max(subnet.num_heads), max(subnet.ffn_dim)
    per_token = 3 * shape.embed_dim + max(4 * heads * shape.head_dim, 4 * ffn)
    scores = 2 * shape.scores_per_token(workload.seq_len) * heads
    floats = (
        workload.num_tokens * (per_token + scores) + _num_answers(spec) + _cached(spec, subnet)
    )
    return BYTES_PER_FLOAT * floats + BYTES_PER_TOKEN * workload.batch_size * workload.seq_len


def _num_answers(spec: MeasuringSpec) -> int:
    """Logits of a pass, where there are many."""
    shape, workload = spec.shape, spec.workload
    if not shape.answers_per_token:
        return 0
    is_last_alone = workload.phase in ("prefill", "decode")
    places = workload.batch_size if is_last_alone else workload.num_tokens
    return places * max(shape.num_labels, shape.vocab_size)


def _cached(spec: MeasuringSpec, subnet: SubnetConfig) -> int:
    """Keys and values, as they come in and as they go out."""
    shape, workload = spec.shape, spec.workload
    if workload.phase == "encode":
        return 0
    kv = sum(subnet.num_heads) // shape.queries_per_group * shape.head_dim
    return 4 * workload.batch_size * (workload.seq_len + 1) * kv


def building_bytes(spec: MeasuringSpec, network: NetworkSpec) -> int:
    """On top, for as long as a network is built or read."""
    weights = BYTES_PER_FLOAT * num_params(_built_shape(spec, network), _subnet(spec, network))
    return int(BUILDING_PER_WEIGHT_BYTE * weights)


def needed_bytes(spec: MeasuringSpec) -> int:
    """The least that a session can do with: all anchors, and its largest network being built."""
    anchors = sum(loaded_bytes(spec, network) for network in spec.anchors)
    everything = (*spec.anchors, *spec.networks)
    return anchors + max(loaded_bytes(spec, n) + building_bytes(spec, n) for n in everything)


def check_memory(spec: MeasuringSpec, available_bytes: int) -> None:
    """Raises: SpecTooLarge."""
    allowed = int(MEMORY_SHARE * available_bytes)
    needed = needed_bytes(spec)
    if needed > allowed:
        raise SpecTooLarge(needed, allowed)


def groups_that_fit(spec: MeasuringSpec, available_bytes: int) -> list[list[NetworkSpec]]:
    """The networks in groups that can be loaded together, beside the anchors."""
    anchors = sum(loaded_bytes(spec, network) for network in spec.anchors)
    sizes = {network.key: loaded_bytes(spec, network) for network in spec.networks}
    room = int(MEMORY_SHARE * available_bytes) - anchors
    by_key = {network.key: network for network in spec.networks}
    return [[by_key[key] for key in group] for group in groups_by_size(sizes, room)]


def groups_by_size(sizes_bytes: Mapping[str, int], limit_bytes: int) -> list[list[str]]:
    """Keys in groups of at most `limit_bytes`; a network larger than that is a group alone."""
    groups: list[list[str]] = []
    room = 0
    for key, size in sizes_bytes.items():
        if not groups or size > room:
            groups.append([])
            room = limit_bytes
        groups[-1].append(key)
        room -= size
    return groups


def _subnet(spec: MeasuringSpec, network: NetworkSpec) -> SubnetConfig:
    """Of a file that nobody described, the unsearched model stands in."""
    return network.subnet or SubnetConfig.full(spec.shape)


def _built_shape(spec: MeasuringSpec, network: NetworkSpec) -> ModelShape:
    """With the word table as it is built for timing; torch and files have the whole one."""
    is_whole = network.blob is not None or spec.workload.runtime == "torch"
    if is_whole or spec.shape.task == "language-modelling":
        return spec.shape
    return replace(spec.shape, vocab_size=min(spec.shape.vocab_size, NUM_TIMED_TOKEN_IDS))
