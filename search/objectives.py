"""What a subnet costs on paper: parameters, FLOPs and bytes, exact and without building it."""

from __future__ import annotations

from search.space import ModelShape, SubnetConfig

BYTES_PER_FLOAT = 4
# A quantized matrix keeps one byte a weight, and a float scale and a zero point for each channel.
BYTES_PER_CHANNEL = 5


def num_params(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Every weight of the extracted network: embeddings, layers and head."""
    dim = shape.embed_dim
    norms_and_biases = (
        _num_layer_vectors(shape, subnet) + 2 * dim + shape.num_labels  # embedding norm, head bias
    )
    return (
        num_embedding_params(shape)
        + sum(_matrix_sizes(shape, subnet))
        + shape.num_labels * dim
        + norms_and_biases
    )


def num_embedding_params(shape: ModelShape) -> int:
    """The tables of words, positions and token types, which no subnet makes smaller."""
    return (shape.vocab_size + shape.max_seq_len + shape.num_token_types) * shape.embed_dim


def flops(shape: ModelShape, subnet: SubnetConfig, *, seq_len: int, batch_size: int = 1) -> int:
    """Floating-point operations of one forward pass: 2 for each multiply-add of a matrix product.

    Norms, softmax, GELU and biases are left out, as is usual. Precision changes nothing.
    """
    macs_per_sequence = seq_len * sum(_matrix_sizes(shape, subnet))
    for num_heads in subnet.num_heads:  # scores, then their product with the values
        macs_per_sequence += 2 * seq_len**2 * num_heads * shape.head_dim
    macs_per_sequence += seq_len * shape.embed_dim  # mean pooling is a product with the mask
    macs_per_sequence += shape.num_labels * shape.embed_dim
    return 2 * batch_size * macs_per_sequence


def size_bytes(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Bytes of the weights as stored; the ONNX file adds its graph, about 1 % for MiniLM."""
    if subnet.precision == "fp32":
        return BYTES_PER_FLOAT * num_params(shape, subnet)
    int8 = num_embedding_params(shape) + sum(_matrix_sizes(shape, subnet))
    floats = num_params(shape, subnet) - int8
    return int8 + BYTES_PER_FLOAT * floats + BYTES_PER_CHANNEL * _num_channels(shape, subnet)


def _matrix_sizes(shape: ModelShape, subnet: SubnetConfig) -> list[int]:
    """Weights of the matrices of each layer: q, k, v and out, then up and down."""
    return [
        4 * num_heads * shape.head_dim * shape.embed_dim + 2 * ffn_dim * shape.embed_dim
        for num_heads, ffn_dim in zip(subnet.num_heads, subnet.ffn_dim, strict=True)
    ]


def _num_channels(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Output channels of the matrices, each with a bias in the graph."""
    return sum(
        3 * num_heads * shape.head_dim + ffn_dim + 2 * shape.embed_dim
        for num_heads, ffn_dim in zip(subnet.num_heads, subnet.ffn_dim, strict=True)
    )


def _num_layer_vectors(shape: ModelShape, subnet: SubnetConfig) -> int:
    """Biases, one a channel, and two norms a layer."""
    return _num_channels(shape, subnet) + subnet.num_layers * 4 * shape.embed_dim
