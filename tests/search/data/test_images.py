from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.data import images as module
from search.data.dataset import read_dataset
from search.data.images import Images, Normalisation, check_image_size, read_normalisation
from search.errors import InvalidInput
from tests.search.families import SHAPES

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
LABELS = np.arange(60) % 3


def save(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, **arrays)
    return path


def read(path: Path) -> Images:
    dataset = read_dataset(path, task="image-classification")
    assert isinstance(dataset, Images)
    return dataset


def npy(array: np.ndarray[Any, Any], **changes: Any) -> bytes:
    """The array's file, its header changed."""
    buffer = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **changes}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def archive(tmp_path: Path, images: bytes, labels: bytes | None = None) -> Path:
    path = tmp_path / "made.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("images.npy", images)
        target.writestr("labels.npy", npy(LABELS) if labels is None else labels)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
def test_grey_images_have_one_channel(tmp_path: Path, order: Any) -> None:
    dataset = read(save(tmp_path, images=np.asarray(PIXELS, order=order), labels=LABELS))
    assert dataset.pixels.shape == (60, 1, 8, 8)
    assert np.array_equal(dataset.pixels[:, 0], PIXELS)
    assert dataset.labels == tuple(LABELS)
    assert dataset.label_names == ("0", "1", "2")
    assert dataset.summary() == {
        "num_rows": 60,
        "num_labels": 3,
        "rows_by_label": {"0": 20, "1": 20, "2": 20},
        "num_channels": 1,
        "height": 8,
        "width": 8,
    }


def test_colours_come_last_in_the_file_and_first_in_memory(tmp_path: Path) -> None:
    colours = np.stack([PIXELS, 255 - PIXELS, PIXELS // 2], -1)
    words = np.array(["cat", "dog", "bird"])[LABELS]
    dataset = read(save(tmp_path, images=colours, labels=words))
    assert dataset.pixels.shape == (60, 3, 8, 8)
    assert np.array_equal(dataset.pixels[:, 1], 255 - PIXELS)
    assert [dataset.label_names[i] for i in dataset.labels[:3]] == ["cat", "dog", "bird"]


@pytest.mark.parametrize(
    ("arrays", "field", "match"),
    [
        ({"pixels": PIXELS, "labels": LABELS}, "data.image", "'images' is missing; the file has"),
        ({"images": PIXELS}, "data.label", "'labels' is missing; the file has 'images'"),
        ({"images": PIXELS / 255, "labels": LABELS}, "data.image", "uint8, .* not float64"),
        ({"images": PIXELS[0], "labels": LABELS}, "data.image", r"this is \(8, 8\)"),
        ({"images": PIXELS, "labels": LABELS[:59]}, "data.label", "60 images, not"),
        ({"images": PIXELS, "labels": LABELS / 2}, "data.label", "whole numbers or words"),
        ({"images": PIXELS, "labels": LABELS * 0}, "data.label", "every row has the label '0'"),
        ({"images": PIXELS[:50], "labels": LABELS[:50]}, "data", "need at least 60 for 3 classes"),
        ({"images": PIXELS, "labels": np.array(["a", ""] * 30)}, "data.label", "image 2 has an"),
    ],
)
def test_wrong_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, Any], field: str, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read(save(tmp_path, **arrays))
    assert caught.value.field == field


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = save(tmp_path, images=np.array([Trap()] * 60, dtype=object), labels=LABELS)
    with pytest.raises(InvalidInput, match="holds Python objects, which can run code"):
        read(path)
    assert not (tmp_path / "sprung").exists()


def test_an_array_that_claims_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PIXEL_BYTES", 10_000)
    bomb = npy(np.zeros((60, 100, 100), dtype=np.uint8))
    path = archive(tmp_path, bomb)
    assert path.stat().st_size < 3000
    with pytest.raises(InvalidInput, match="more than 10000 bytes"):
        read(path)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (npy(PIXELS)[:-1], "ends before its 3840 bytes"),
        (npy(PIXELS, shape=(60, -8, 8)), "is not a numpy array"),
        (b"\x93NUMPY\x09\x00", "is not a numpy array"),
        (b"", "is not a numpy array"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, images: bytes, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read(archive(tmp_path, images))
    assert caught.value.field == "data.image"


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_damaged_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path, images=PIXELS, labels=LABELS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidInput, match="is not an archive") as caught:
        read(path)
    assert caught.value.field == "data"


def test_bytes_that_were_changed_are_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, images=PIXELS, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        read(path)
    assert caught.value.field.startswith("data")


def test_images_of_another_size_than_the_model_reads_are_named() -> None:
    summary = {"num_channels": 3, "height": 28, "width": 28}
    with pytest.raises(
        InvalidInput,
        match=r"are 28 x 28 with 3 channels, but the model reads 8 x 8 with 1 channel$",
    ) as caught:
        check_image_size(summary, SHAPES["vit"])
    assert caught.value.field == "data.image"
    check_image_size({"num_channels": 1, "height": 8, "width": 8}, SHAPES["vit"])


def test_normalised_pixels_have_mean_0_and_deviation_1() -> None:
    pixels = np.stack([PIXELS, PIXELS // 3, PIXELS * 0 + 7], 1)
    found = Normalisation.of(pixels)
    for channel in (0, 1):
        values = pixels[:, channel] / 255
        assert found.mean[channel] == pytest.approx(values.mean())
        assert found.std[channel] == pytest.approx(values.std())
    assert (found.mean[2], found.std[2]) == (pytest.approx(7 / 255), 1.0)


def test_a_models_own_normalisation_is_read(tmp_path: Path) -> None:
    assert read_normalisation(tmp_path, 3) is None
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 0.2, 0.1]}))
    found = read_normalisation(tmp_path, 3)
    assert found == Normalisation(mean=(0.5, 0.4, 0.3), std=(1.0, 0.2, 0.1))
    path.write_text(json.dumps({"size": 224}))
    assert read_normalisation(tmp_path, 3) is None
    path.write_text(json.dumps({"do_normalize": False, "image_mean": "?"}))
    assert read_normalisation(tmp_path, 1) == Normalisation(mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"image_mean": [0.5], "image_std": [0.5] * 3}, "image_mean must be a list of 3"),
        ({"image_mean": [0.5] * 3}, "image_std must be a list of 3"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0, 1]}, "image_std must be above 0"),
        ({"image_mean": [True] * 3, "image_std": [1] * 3}, "image_mean must be a list"),
        ([], "must hold a JSON object"),
    ],
)
def test_a_normalisation_that_cannot_be_done_is_refused(
    tmp_path: Path, config: Any, match: str
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match=match) as caught:
        read_normalisation(tmp_path, 3)
    assert caught.value.field == "preprocessor_config.json"
