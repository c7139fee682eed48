"""Name and shape of every weight of a subnet by itself, without building it. No torch."""

from __future__ import annotations

from search.errors import InvalidInput
from search.shape import ModelShape
from search.space import SubnetConfig

Shapes = dict[str, tuple[int, ...]]
PROJECTIONS = ("q", "k", "v", "out")


def weight_shapes(
    shape: ModelShape, subnet: SubnetConfig, *, vocab_size: int | None = None
) -> Shapes:
    """As the extracted network has them, its layers numbered from 0; those that share their
    weights have them once, under the number of their group.

    Args:
        vocab_size: of a network that is only timed, whose word table may be smaller.

    Raises:
        InvalidInput: layers that would share their weights differ.
    """
    dim = subnet.width_in(shape)
    shapes = _embedding_shapes(shape, dim, vocab_size or shape.vocab_size)
    for i, (num_heads, ffn_dim) in enumerate(own_layer_sizes(shape, subnet)):
        shapes |= _attention_shapes(f"layers.{i}.attn", shape, dim, num_heads)
        shapes |= _ffn_shapes(f"layers.{i}.ffn", shape, dim, ffn_dim)
    if shape.norm_first:
        shapes |= _norm_shapes("norm", shape, dim)
    if shape.has_head and not shape.has_tied_head:
        is_vocabulary = shape.task == "language-modelling"
        rows = (vocab_size or shape.vocab_size) if is_vocabulary else shape.num_labels
        shapes |= _linear_shapes("head", rows, dim, has_bias=shape.has_head_bias)
    return shapes


def own_layer_sizes(shape: ModelShape, subnet: SubnetConfig) -> tuple[tuple[int, int], ...]:
    """Heads and neurons of every layer that has weights of its own: the first of each group.

    Raises:
        InvalidInput: layers of a group differ.
    """
    sizes = tuple(zip(subnet.num_heads, subnet.ffn_dim, strict=True))
    firsts = sizes[:: shape.layers_per_group]
    for place, own in enumerate(sizes):
        if own != firsts[place // shape.layers_per_group]:
            raise InvalidInput(
                "subnet.layers",
                f"must be alike in groups of {shape.layers_per_group}, which share their weights",
            )
    return firsts


def layer_matrices(shape: ModelShape, dim: int, num_heads: int, ffn_dim: int) -> Shapes:
    """(out, in) of the matrices of one layer, by the last part of their names."""
    inner = num_heads * shape.head_dim
    kv = inner // shape.queries_per_group
    matrices: Shapes = {"q": (inner, dim), "k": (kv, dim), "v": (kv, dim), "out": (dim, inner)}
    for part, size in _ffn_matrices(shape, dim, ffn_dim).items():
        if shape.ffn_rank:
            rows, columns = size
            matrices[f"{part}_low"] = (shape.ffn_rank, columns)
            size = (rows, shape.ffn_rank)
        matrices[part] = size
    return matrices


def _ffn_matrices(shape: ModelShape, dim: int, ffn_dim: int) -> Shapes:
    """As they are, or as the product of two is."""
    gate: Shapes = {"gate": (ffn_dim, dim)} if shape.is_gated else {}
    return gate | {"up": (ffn_dim, dim), "down": (dim, ffn_dim)}


def _embedding_shapes(shape: ModelShape, dim: int, vocab_size: int) -> Shapes:
    shapes: Shapes = {}
    if shape.reads_images:
        shapes |= _linear_shapes("embeddings.patch", dim, shape.patch_dim, has_bias=True)
        shapes["embeddings.prefix"] = (shape.num_prefix_tokens, dim)
    else:
        shapes["embeddings.word.weight"] = (vocab_size, shape.word_rank or dim)
    if shape.word_rank:
        shapes |= _linear_shapes("embeddings.spread", dim, shape.word_rank, has_bias=False)
    if shape.positions == "learned":
        shapes["embeddings.position.weight"] = (shape.max_seq_len, dim)
    if shape.num_token_types:
        shapes["embeddings.token_type.weight"] = (shape.num_token_types, dim)
    if not shape.norm_first:
        shapes |= _norm_shapes("embeddings.norm", shape, dim)
    return shapes


def _attention_shapes(name: str, shape: ModelShape, dim: int, num_heads: int) -> Shapes:
    matrices = layer_matrices(shape, dim, num_heads, 1)
    shapes: Shapes = {}
    for part in ("q", "k", "v"):
        shapes |= _linear_shapes(f"{name}.{part}", *matrices[part], has_bias=shape.has_qkv_bias)
    shapes |= _linear_shapes(f"{name}.out", *matrices["out"], has_bias=shape.has_out_bias)
    if shape.has_qk_norm:
        for part in ("q_norm", "k_norm"):
            shapes[f"{name}.{part}.weight"] = (shape.head_dim,)
    return shapes | _norm_shapes(f"{name}.norm", shape, dim)


def _ffn_shapes(name: str, shape: ModelShape, dim: int, ffn_dim: int) -> Shapes:
    matrices = layer_matrices(shape, dim, shape.queries_per_group, ffn_dim)
    shapes: Shapes = {}
    for part, size in matrices.items():
        if part not in PROJECTIONS:
            has_bias = shape.has_ffn_bias and not part.endswith("_low")
            shapes |= _linear_shapes(f"{name}.{part}", *size, has_bias=has_bias)
    return shapes | _norm_shapes(f"{name}.norm", shape, dim)


def _linear_shapes(name: str, *size: int, has_bias: bool) -> Shapes:
    """Of a matrix (out, in) and its bias."""
    shapes: Shapes = {f"{name}.weight": size}
    return shapes | {f"{name}.bias": size[:1]} if has_bias else shapes


def _norm_shapes(name: str, shape: ModelShape, dim: int) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (dim,)}
    return shapes | {f"{name}.bias": (dim,)} if shape.norm == "layer" else shapes
