"""A target's network as it stands, and rows as it reads them: its vocabulary may be its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from search.compress.checkpoint import load_compressed
from search.compress.network import Compressed, rows_read_by
from search.compress.pieces import Spec, trimmed_tokenizer
from search.shape import ModelShape
from search.training.rows import Rows
from workers.context import JobContext
from workers.steps.data import load_network, load_rows
from workers.steps.state import State, Target, Vocabulary


def network_of(ctx: JobContext, state: State, target: Target) -> Compressed:
    """With the structure that the search found, and whatever its recipe made of it."""
    if target.recipe is not None:
        return load_compressed(ctx.blob(target.recipe.network))
    model = load_network(ctx, state, target.weights, target.config)
    return Compressed(model, target.config)


def rows_for(ctx: JobContext, state: State, network: Compressed, sha256: str) -> Rows:
    """A split's rows in the ids of the network's own vocabulary."""
    rows = load_rows(ctx, sha256)
    if network.kept_tokens is None:
        return rows
    return rows_read_by(network, rows, tokenizer_spec(ctx, state))


def tokenizer_spec(ctx: JobContext, state: State) -> Spec | None:
    """What the model's own tokenizer.json says; None of a model that reads images."""
    if state.model_shape.reads_images:
        return None
    spec: Spec = json.loads(ctx.blob(state.blobs.reader).read_bytes())
    return spec


def write_tokenizer(ctx: JobContext, state: State, kept: Tensor, path: Path) -> Path:
    """The tokenizer of a vocabulary that was trimmed to `kept`."""
    spec = tokenizer_spec(ctx, state)
    assert spec is not None
    path.write_text(json.dumps(trimmed_tokenizer(spec, kept.tolist()), ensure_ascii=False))
    return path


def with_vocabulary_of(ctx: JobContext, state: State, network: Compressed, file: str) -> State:
    """Knowing the words of a network's exported file, if they are its own."""
    kept = network.kept_tokens
    if kept is None or file in state.vocabularies:
        return state
    path = write_tokenizer(ctx, state, kept, ctx.scratch / f"{file}-tokenizer.json")
    vocabulary = Vocabulary(reader=ctx.put_blob(path), size=len(kept))
    return state.updated(vocabularies={**state.vocabularies, file: vocabulary})


def renumbered(config: dict[str, Any], kept: Tensor) -> dict[str, Any]:
    """tokenizer_config.json with the numbers that its added tokens have in what is kept."""
    new_ids = {str(old): str(new) for new, old in enumerate(kept.tolist())}
    added = config.get("added_tokens_decoder")
    if not isinstance(added, dict):
        return config
    tokens = {new_ids[old]: token for old, token in added.items() if old in new_ids}
    return {**config, "added_tokens_decoder": tokens}


def is_as_predicted(shape: ModelShape, network: Compressed) -> bool:
    """Whether a latency is that of its `SubnetConfig` in the model as it was: a narrow word table
    adds a product, and a language model's head says as many words as there are. Rows of a table
    are read one by one, however many there are, and layers take as long whosever weights they
    have."""
    own = replace(network.model.shape, layers_per_group=shape.layers_per_group)
    if shape.task != "language-modelling":
        own = replace(own, vocab_size=shape.vocab_size)
    return own == shape
