"""Vectors of a network in int8, and which layers bring them nearer to fp32's."""

from __future__ import annotations

from itertools import islice

import torch

from benchmarks.int8_vectors import as_encoder, cosines, vectors, with_float_layers
from search.model.transformer import mean_pool
from search.training.evaluate import predict
from tests.search import small
from tests.search.compress.data import ordered, teacher

ROWS = ordered(64, seed=5)


def test_an_encoder_answers_with_the_mean_of_the_last_states() -> None:
    batch = small.batch()
    output = teacher()(batch)
    found = as_encoder(teacher())(batch).logits
    assert torch.equal(found, mean_pool(output.hidden[-1], batch.attention_mask))


def test_files_vectors_are_the_networks() -> None:
    found = vectors(teacher(), teacher().sizes, ROWS)
    assert cosines(found, predict(as_encoder(teacher()), ROWS))["p1"] > 0.99999


def test_layers_in_fp32_bring_the_vectors_nearer() -> None:
    model = small.network()
    wanted = predict(as_encoder(model), ROWS)
    found = []
    for count, subnet in enumerate(islice(with_float_layers(model, ROWS), 3)):
        assert len(subnet.float_layers) == count
        assert subnet.precision == "int8"
        found.append(cosines(predict(as_encoder(model), ROWS, subnet), wanted)["mean"])
    assert found == sorted(found)
    assert found[0] < found[2]
