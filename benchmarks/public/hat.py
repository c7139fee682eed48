"""HAT's latency data (Wang et al. 2020): encoder-decoder translation, two parts to a row.

Columns hold averages over layers. Batch 1, beam 5; a sentence has 30 tokens (23 in IWSLT), and the
decoder takes a step for each. Rows are in the order in which they were measured.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.public.table import CALL, LAYER, WORK, Floats, Table

BEAM = 5.0
HEADS_DIM = 512.0  # of queries, keys and values of all heads together, whatever their number
VOCABULARY = 32_768.0
LENGTHS = {"iwslt": 23.0}
LENGTH = 30.0
MACS_PER_ELEMENT = 8.0

ENCODER_FAMILIES = (CALL, LAYER, WORK, WORK, WORK, WORK)
DECODER_FAMILIES = (CALL, LAYER, *[WORK] * 8)

# The features of HAT's own predictor, with the numbers that it divides them by.
FEATURES = {
    "encoder_embed_dim": 640.0,
    "encoder_layer_num": 6.0,
    "encoder_ffn_embed_dim_avg": 2048.0,
    "encoder_self_attention_heads_avg": 6.0,
    "decoder_embed_dim": 640.0,
    "decoder_layer_num": 6.0,
    "decoder_ffn_embed_dim_avg": 2048.0,
    "decoder_self_attention_heads_avg": 6.0,
    "decoder_ende_attention_heads_avg": 6.0,
    "decoder_arbitrary_ende_attn_avg": 2.0,
}


def read_columns(path: Path) -> dict[str, Floats]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def read_hat(path: Path) -> Table:
    columns = read_columns(path)
    length = next((n for task, n in LENGTHS.items() if path.stem.startswith(task)), LENGTH)
    encoder, decoder = _encoder_terms(columns, length), _decoder_terms(columns, length)
    families = np.array(ENCODER_FAMILIES + DECODER_FAMILIES)
    terms = np.hstack([encoder, decoder])
    layers = [columns["encoder_layer_num"], columns["decoder_layer_num"]]
    return Table(
        terms=terms,
        families=families,
        part_of_term=np.array([0] * encoder.shape[1] + [1] * decoder.shape[1]),
        parts_ms=np.stack(
            [columns["latency_mean_encoder"], columns["latency_mean_decoder"]], axis=1
        ),
        details=None,  # averages hide what the layers are
        depths=tuple(zip(*(layer.astype(int).tolist() for layer in layers), strict=True)),
        depth_terms=np.stack([np.ones(len(terms)), *layers], axis=1),
        macs=terms[:, families == WORK].sum(axis=1),
    )


def read_features(path: Path) -> Floats:
    """(n, 10) as HAT's own predictor sees a network."""
    columns = read_columns(path)
    return np.stack([columns[name] / norm for name, norm in FEATURES.items()], axis=1)


def _encoder_terms(columns: dict[str, Floats], length: float) -> Floats:
    layers, dim = columns["encoder_layer_num"], columns["encoder_embed_dim"]
    ffn, heads = columns["encoder_ffn_embed_dim_avg"], columns["encoder_self_attention_heads_avg"]
    return np.stack(
        [
            np.ones(len(dim)),
            layers,
            MACS_PER_ELEMENT * length * layers * dim,
            4 * length * HEADS_DIM * layers * dim,
            2 * length * layers * ffn * dim,
            MACS_PER_ELEMENT * length**2 * layers * heads,
        ],
        axis=1,
    )


def _decoder_terms(columns: dict[str, Floats], length: float) -> Floats:
    """Of all steps; cross-attention reads the encoder's last layers, `attended` of them."""
    layers, dim = columns["decoder_layer_num"], columns["decoder_embed_dim"]
    ffn, heads = columns["decoder_ffn_embed_dim_avg"], columns["decoder_self_attention_heads_avg"]
    cross_heads = columns["decoder_ende_attention_heads_avg"]
    attended = columns["decoder_arbitrary_ende_attn_avg"]
    encoder_dim, tokens = columns["encoder_embed_dim"], BEAM * length
    return np.stack(
        [
            np.ones(len(dim)),
            layers,
            MACS_PER_ELEMENT * tokens * layers * dim,
            6 * tokens * HEADS_DIM * layers * dim,
            2 * tokens * layers * ffn * dim,
            MACS_PER_ELEMENT * tokens * length * layers * heads,
            MACS_PER_ELEMENT * tokens * length * layers * cross_heads,
            2 * tokens * length * HEADS_DIM * layers * attended,
            2 * length * HEADS_DIM * layers * attended * encoder_dim,
            tokens * VOCABULARY * dim,
        ],
        axis=1,
    )
