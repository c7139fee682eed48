"""What a subnet costs on paper: parameters, FLOPs and bytes, exact and without building it."""

from __future__ import annotations

from math import prod

from search.shape import ModelShape
from search.space import SubnetConfig
from search.weights import layer_matrices, weight_shapes

BYTES_PER_FLOAT = 4
# A quantized matrix keeps one byte a weight, and a float scale and a zero point for each channel.
BYTES_PER_CHANNEL = 5


def num_params(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Every weight of the extracted network: embeddings, layers and head."""
    return sum(prod(size) for size in weight_shapes(shape, subnet).values())


def flops(
    shape: ModelShape,
    subnet: SubnetConfig,
    *,
    seq_len: int,
    batch_size: int = 1,
    past_len: int = 0,
) -> int:
    """Floating-point operations of one forward pass: 2 for each multiply-add of a matrix product.

    Norms, softmax, activations and biases are left out, as is usual. Precision changes nothing,
    and neither does a causal mask: kernels compute what it hides.

    Args:
        seq_len: tokens of the pass; those of an image include its prefix.
        past_len: tokens in a cache, which attention reads too.
    """
    dim = subnet.width_in(shape)
    macs_per_sequence = 0
    for num_heads, ffn_dim in zip(subnet.num_heads, subnet.ffn_dim, strict=True):
        matrices = layer_matrices(shape, dim, num_heads, ffn_dim).values()
        macs_per_sequence += seq_len * sum(prod(size) for size in matrices)
        # Scores, then their product with the values; of linear attention, a product of keys and
        # values, then of queries with it.
        scores = shape.scores_per_token(seq_len + past_len)
        macs_per_sequence += 2 * seq_len * scores * num_heads * shape.head_dim
    macs_per_sequence += shape.num_patches * shape.patch_dim * dim
    macs_per_sequence += seq_len * shape.word_rank * dim
    macs_per_sequence += _answer_macs(shape, dim, seq_len)
    return 2 * batch_size * macs_per_sequence


def size_bytes(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Bytes of the weights as stored; the ONNX file adds its graph, about 1 % for MiniLM."""
    total = 0
    for name, size in weight_shapes(shape, subnet).items():
        if _is_int8(name, shape, subnet):
            is_table = name.startswith("embeddings.")
            total += prod(size) + (0 if is_table else BYTES_PER_CHANNEL * size[0])
        else:
            total += BYTES_PER_FLOAT * prod(size)
    return total


def peak_memory_bytes(
    shape: ModelShape,
    subnet: SubnetConfig,
    *,
    seq_len: int,
    batch_size: int = 1,
    past_len: int = 0,
) -> int:
    """Bytes that one forward pass must hold at once: weights, cache, and the widest moment.

    That is attention with its scores, a feed-forward layer at its full width, or the answer,
    whichever is more; activations count as floats. What a runtime keeps besides is left out.
    """
    tokens, cached = batch_size * seq_len, batch_size * (past_len + seq_len) * bool(past_len)
    stream = tokens * subnet.width_in(shape)
    widest = cache = 0
    for num_heads, ffn_dim in zip(subnet.num_heads, subnet.ffn_dim, strict=True):
        queries = num_heads * shape.head_dim
        pairs = 2 * queries // shape.queries_per_group  # keys and values
        scores = tokens * num_heads * shape.scores_per_token(seq_len + past_len)
        neurons = tokens * ffn_dim * (2 if shape.is_gated else 1)
        widest = max(widest, tokens * (queries + pairs) + scores, neurons)
        cache += cached * pairs
    outputs = shape.vocab_size if shape.task == "language-modelling" else shape.num_labels
    answers = (tokens if shape.answers_per_token else batch_size) * outputs
    activations = 2 * stream + max(widest, answers)  # a layer's input stays for the residual
    return size_bytes(shape, subnet) + BYTES_PER_FLOAT * (activations + cache)


def _answer_macs(shape: ModelShape, dim: int, seq_len: int) -> int:
    """Pooling, a product with the mask, and the head."""
    outputs = shape.vocab_size if shape.task == "language-modelling" else shape.num_labels
    if shape.answers_per_token:
        return seq_len * dim * outputs
    pooling = 0 if shape.reads_images else seq_len * dim
    return pooling + dim * outputs


def _is_int8(name: str, shape: ModelShape, subnet: SubnetConfig) -> bool:
    """Whether a weight is stored in int8: matrices and tables, not the head of a few labels."""
    if subnet.precision != "int8" or not name.endswith("weight") or "norm" in name:
        return False
    if name.startswith("layers."):
        # Layers that stay in fp32 read what their group has, as it was rounded for the others.
        first = int(name.split(".")[1]) * shape.layers_per_group
        group = subnet.layers[first : first + shape.layers_per_group]
        return any(subnet.precision_of(layer) == "int8" for layer in group)
    if name.startswith("head."):
        return shape.task == "language-modelling"
    return not (shape.reads_images or name == "embeddings.spread.weight")
