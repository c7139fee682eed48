from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from search.compress.files import write_file
from search.compress.network import Compressed
from search.export.package import export_onnx
from search.export.running import OnnxNetwork, evaluate_file
from search.model.transformer import Batch, ElasticTransformer
from search.robustness.bitflips import StoredBits, faulty_quality, measure_bit_flips
from search.training.batches import TokenRows
from search.training.evaluate import Network, predict, quality_of
from tests.search import small
from tests.search.families import SHAPES
from tests.search.robustness.probes import knows_not, probe

SHAPE = small.SHAPE


def balanced() -> ElasticTransformer:
    """With as many answers of each label: one that gives the same always cannot get worse."""
    model = small.network()
    first, second = predict(model, small.task(48)).T
    assert model.head is not None
    with torch.no_grad():
        model.head.bias[1] += (first - second).sort().values[23:25].mean()
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in both precisions."""
    folder, model = tmp_path_factory.mktemp("files"), balanced()
    return {
        precision: export_onnx(
            model, model.sizes.with_precision(precision), folder / f"{precision}.onnx"
        )
        for precision in ("fp32", "int8")
    }


@pytest.fixture(scope="module")
def rows() -> TokenRows:
    """Right is what the whole network answers."""
    rows = small.task(48)
    return replace(rows, labels=predict(balanced(), rows).argmax(-1))


def test_every_matrix_is_in_the_stored_bits_as_the_file_has_it(files: dict[str, Path]) -> None:
    graph = onnx.load(files["fp32"]).graph
    matrices = [t for t in graph.initializer if len(t.dims) == 2]
    assert StoredBits(files["fp32"]).num_bits == 32 * sum(np.prod(t.dims) for t in matrices)
    ratio = StoredBits(files["fp32"]).num_bits / StoredBits(files["int8"]).num_bits
    assert 3 < ratio < 4, "the head stays as it is"


def test_exactly_the_drawn_bits_are_flipped_and_then_flipped_back(files: dict[str, Path]) -> None:
    stored = StoredBits(files["int8"])

    def bits_of(model: bytes) -> np.ndarray:
        graph = onnx.load_model_from_string(model).graph
        raw = b"".join(t.raw_data for t in graph.initializer if len(t.dims) == 2)
        return np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")

    with stored.flipped(np.array([], dtype=np.int64)) as model:
        clean = bits_of(model)
    drawn = np.array([0, 9, 9, stored.num_bits - 1])
    with stored.flipped(drawn) as model:
        changed = np.flatnonzero(bits_of(model) != clean)
    assert changed.tolist() == [0, stored.num_bits - 1], "a bit that flips twice is as before"
    with stored.flipped(np.array([], dtype=np.int64)) as model:
        assert (bits_of(model) == clean).all()


def test_as_many_bits_are_drawn_as_the_rate_says(files: dict[str, Path]) -> None:
    stored = StoredBits(files["fp32"])
    drawn = stored.draw(1e-3, np.random.default_rng(0))
    assert len(drawn) == pytest.approx(1e-3 * stored.num_bits, rel=0.2)
    assert len(stored.draw(0.0, np.random.default_rng(0))) == 0


def test_without_flips_a_file_is_as_good_as_it_is(files: dict[str, Path], rows: TokenRows) -> None:
    found = measure_bit_flips(files["fp32"], rows, SHAPE, seed=0, rates=(0.0,), num_trials=2)
    (level,) = found.levels
    assert found.clean == level.quality == level.worst == 1.0
    assert level.mean_flips == level.collapsed == 0
    assert found.clean == quality_of(evaluate_file(files["fp32"], rows, SHAPE), SHAPE).value


def test_int8_bears_a_rate_of_flips_that_ruins_fp32(
    files: dict[str, Path], rows: TokenRows
) -> None:
    fp32, int8 = (
        measure_bit_flips(files[precision], rows, SHAPE, seed=0, rates=(1e-4, 1e-2), num_trials=8)
        for precision in ("fp32", "int8")
    )
    assert fp32.levels[0].quality < int8.levels[0].quality - 0.1
    assert fp32.levels[0].collapsed > int8.levels[0].collapsed + 0.3
    assert int8.levels[1].quality < int8.levels[0].quality, "but not any rate"
    assert fp32.levels[0].worst <= fp32.levels[0].quality
    assert json.loads(json.dumps(fp32.to_dict(), allow_nan=False)) == fp32.to_dict()


def test_the_same_seed_flips_the_same_bits(files: dict[str, Path], rows: TokenRows) -> None:
    few = rows.select(range(8))
    one, same, other = (
        measure_bit_flips(files["fp32"], few, SHAPE, seed=seed, rates=(1e-5,), num_trials=3)
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one.levels[0].mean_flips != other.levels[0].mean_flips


def always(value: float) -> Callable[[Batch], Tensor]:
    return lambda batch: torch.full((len(batch.inputs), 2), value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_wrong(value: float, tmp_path: Path) -> None:
    asked = probe(tmp_path)
    assert faulty_quality(knows_not, asked.rows, asked.shape) == 1.0
    assert faulty_quality(always(value), asked.rows, asked.shape) == 0.0
    assert faulty_quality(always(0.0), asked.rows, asked.shape) == 0.5


def test_no_token_counts_less_than_one_of_which_nothing_is_known() -> None:
    shape = SHAPES["gpt2"]
    rows = TokenRows(
        torch.tensor([1, 2], dtype=torch.int32),
        torch.tensor([0, 2]),
        torch.tensor([2, 3]),
        has_token_labels=True,
    )

    def sure_of_0(batch: Batch) -> Tensor:
        return 1e6 * torch.eye(shape.vocab_size)[torch.zeros_like(batch.inputs)]

    def lost(batch: Batch) -> Tensor:
        return torch.full((*batch.inputs.shape, shape.vocab_size), float("nan"))

    for network in (sure_of_0, lost):
        assert faulty_quality(network, rows, shape) == pytest.approx(-np.log(shape.vocab_size))


def test_a_trial_that_gives_no_numbers_has_collapsed(
    files: dict[str, Path], rows: TokenRows
) -> None:
    opened = []

    def open_model(model: bytes) -> Network:
        opened.append(model)
        return OnnxNetwork(model) if len(opened) == 1 else always(float("nan"))

    found = measure_bit_flips(
        files["fp32"], rows, SHAPE, seed=0, rates=(1e-6,), num_trials=2, open_model=open_model
    )
    assert len(opened) == 3
    assert (found.levels[0].quality, found.levels[0].collapsed) == (0.0, 1.0)


def test_halves_are_flipped_as_they_are_stored(tmp_path: Path) -> None:
    network = replace(Compressed.whole(balanced()), format="fp16")
    path = write_file(network, tmp_path / "half.onnx")
    whole = export_onnx(network.model, network.subnet, tmp_path / "whole.onnx")
    assert StoredBits(path).num_bits == StoredBits(whole).num_bits // 2


def test_bits_of_packed_weights_may_flip_too(tmp_path: Path) -> None:
    network = replace(Compressed.whole(balanced()), format="int4")
    stored = StoredBits(write_file(network, tmp_path / "int4.onnx"))
    assert stored.num_bits >= 4 * sum(
        parameter.numel()
        for name, parameter in network.model.named_parameters()
        if name.startswith("layers.") and parameter.dim() == 2
    )
