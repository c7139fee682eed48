"""Sizes that the tests of this folder share."""

from __future__ import annotations

from predictors.key import PredictorKey
from predictors.workload import Workload
from search.shape import ModelShape
from search.space import SearchSpace

MINILM = ModelShape(
    family="bert",
    num_layers=6,
    embed_dim=384,
    num_heads=12,
    head_dim=32,
    ffn_dim=1536,
    vocab_size=30522,
    max_seq_len=512,
    num_token_types=2,
    num_labels=2,
)
# Of its own choices: what is asked of predictors does not hang on a preset.
MINILM_SPACE = SearchSpace.for_shape(MINILM).with_choices(
    {"num_heads": (3, 6, 9, 12), "ffn_dim": (384, 768, 1152, 1536)}
)
TINY = ModelShape(
    family="bert",
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    head_dim=8,
    ffn_dim=64,
    vocab_size=100,
    max_seq_len=16,
    num_token_types=2,
    num_labels=2,
)
TINY_SPACE = SearchSpace.for_shape(TINY)
WORKLOAD = Workload(batch_size=1, seq_len=64, threads=1)

KEYS = {
    precision: PredictorKey(
        device_fingerprint="f00d",
        runtime="onnxruntime",
        runtime_version="1.0",
        provider="cpu",
        precision=precision,
        threads=1,
        phase="encode",
    )
    for precision in ("fp32", "int8")
}
MACS_PER_BYTE = {"fp32": 4.0, "int8": 8.0}
