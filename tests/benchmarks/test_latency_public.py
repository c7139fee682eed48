"""On small files that are made here, in the formats of HAT and HW-GPT-Bench."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency_public
from benchmarks.public.emulated import drift_of, score_sessions
from benchmarks.public.hat import FEATURES, read_hat
from benchmarks.public.hwgpt import read_hwgpt
from benchmarks.public.scoring import score_table
from benchmarks.public.table import Floats

HAT_COLUMNS = [*FEATURES, "latency_mean_encoder", "latency_mean_decoder"]
HAT_COLUMNS += ["latency_std_encoder", "latency_std_decoder"]


def write_hat(path: Path, num_rows: int = 700, seed: int = 0, drift: Floats | None = None) -> None:
    rng = np.random.default_rng(seed)
    drift = np.zeros(num_rows) if drift is None else drift
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HAT_COLUMNS)
        for row in range(num_rows):
            layers, dim = int(rng.integers(1, 7)), float(rng.choice([512, 640]))
            ffn, heads = rng.uniform(1024, 3072), rng.uniform(4, 8)
            features = [640, 6, 2048, 6, dim, layers, ffn, heads, heads, 1.5]
            slow = np.exp(drift[row] + rng.normal(0, 0.01))
            decoder = (10 + layers * (20 + 1e-5 * dim * ffn)) * slow
            writer.writerow([*features, 5.0 * slow, decoder, 0.1, 0.1])


def write_hwgpt(path: Path, num_rows: int = 1200) -> None:
    rng = np.random.default_rng(1)
    header = ["arch_id", "embed_dim", "n_layer", "bias", "n_head", "mlp_ratio", "macs", "params"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "lat_ms_near", "lat_ms_far", "lat_ms_rare"])
        for row in range(num_rows):
            dim, layers = int(rng.choice([256, 512])), int(rng.integers(4, 7))
            heads, ratios = rng.choice([4, 8], layers), rng.choice([2, 3, 4], layers)
            macs = 256.0 * heads.sum() * dim + 3.0 * ratios.sum() * dim**2
            base = (2 + 1e-6 * macs + layers) * np.exp(rng.normal(0, 0.01, 2)) * [1, 3]
            rare = base[0] if row < 17 else ""
            by_layer = ["|".join(map(str, values)) for values in (heads, ratios)]
            writer.writerow([row, dim, layers, 1, *by_layer, macs, 1, *base, rare])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("hat", "hwgpt"):
        (tmp_path / name).mkdir()
    write_hat(tmp_path / "hat" / "iwslt14deen_gpu_one_all.csv")
    write_hwgpt(tmp_path / "hwgpt" / "gpt_s.csv")
    (tmp_path / "hwgpt" / "gpt_s_noise.csv").write_text("arch_id,cv_near\n0,0.01\n")
    return tmp_path


def test_figures_have_the_agreed_shape(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["latency_public", "--data", str(data), "--quick"])

    assert latency_public.main() == 0

    figures = json.loads(capsys.readouterr().out)
    scores = figures["hat"]["iwslt14deen_gpu_one_all"]["50"]
    assert set(scores) >= {
        "mape",
        "within_5",
        "within_10",
        "spearman",
        "spearman_equal_depth",
        "coverage_90",
        "half_width",
        "depth_only_mape",
        "flops_only_mape",
        "hat_mlp_mape",
    }
    assert set(figures["hwgpt"]) == {"gpt_s/near", "gpt_s/far"}  # 17 rows are no device
    assert figures["hwgpt"]["gpt_s/near"]["50"]["mape"] < 5
    assert set(figures["few_shot"]["gpt_s/far"]) == {"10"}
    assert set(figures["sessions"]) == {"iwslt14deen_gpu_one_all"}


def test_a_folder_without_data_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["latency_public", "--data", str(tmp_path)])

    with pytest.raises(SystemExit, match="holds neither"):
        latency_public.main()


def test_held_out_rows_are_predicted_to_their_noise(data: Path) -> None:
    table = read_hwgpt(data / "hwgpt" / "gpt_s.csv")["near"]

    scores = score_table(table, 50, num_splits=2)

    assert scores["mape"] < 2
    assert scores["mape"] < scores["depth_only_mape"]


def test_latency_is_the_sum_of_encoder_and_decoder(data: Path) -> None:
    table = read_hat(data / "hat" / "iwslt14deen_gpu_one_all.csv")

    np.testing.assert_allclose(table.measured_ms, table.parts_ms[:, 0] + table.parts_ms[:, 1])
    assert (table.terms > 0).all()


def test_anchors_take_a_slow_spell_out_of_a_session(tmp_path: Path) -> None:
    drift = np.where((np.arange(700) > 250) & (np.arange(700) < 480), 0.25, 0.0)
    path = tmp_path / "wmt_gpu_two_all.csv"
    write_hat(path, drift=drift)
    table = read_hat(path)

    offsets, _ = drift_of(table)
    scores = score_sessions(table, num_sessions=6)

    np.testing.assert_allclose(offsets[300:450].mean(), 0.25, atol=0.02)
    assert scores["with_anchors_mape"] < 2.5
    assert scores["with_anchors_mape"] < 0.5 * scores["without_anchors_mape"]
