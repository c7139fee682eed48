from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.data import images as images_module
from search.data import listing, pictures
from search.data.dataset import read_dataset, read_unlabelled
from search.data.images import Images
from search.data.listing import listed_files
from search.errors import InvalidInput
from tests.search.data.encoded import (
    NAMES,
    PIXELS,
    images_in,
    png,
    write_listing,
    write_parquet,
)

ENCODED = [png(pixels) for pixels in PIXELS]


def read(path: Path, **options: Any) -> Images:
    found = read_dataset(path, task="image-classification", **options)
    assert isinstance(found, Images)
    return found


def is_as_written(found: Images) -> bool:
    names = [found.label_names[label] for label in found.labels]
    return np.array_equal(found.pixels[:, 0], PIXELS) and names == NAMES


def test_bytes_and_structs_of_a_parquet_column_and_listed_files_are_the_same_images(
    tmp_path: Path,
) -> None:
    plain = write_parquet(tmp_path / "plain.parquet", image=ENCODED, label=NAMES)
    structs = [{"bytes": content, "path": "/anywhere/x.png"} for content in ENCODED]
    hub = write_parquet(tmp_path / "hub.parquet", image=structs, label=NAMES)
    listed = write_listing(tmp_path / "folder", images_in())
    assert all(is_as_written(read(path)) for path in (plain, hub, listed))


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d.parquet", img=ENCODED, kind=NAMES)
    assert is_as_written(read(path, columns={"image": "img", "label": "kind"}))


def test_images_without_labels_need_none(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d.parquet", image=ENCODED[:3])
    found = read_unlabelled(path, task="image-classification")
    assert (len(found), found.label_names) == (3, ())


def test_one_colour_image_makes_all_of_them_colour_images(tmp_path: Path) -> None:
    colour = png(np.stack([PIXELS[0], PIXELS[1], PIXELS[2]], -1))
    path = write_parquet(tmp_path / "d.parquet", image=[*ENCODED[:39], colour], label=NAMES)
    found = read(path)
    assert found.num_channels == 3
    assert np.array_equal(found.pixels[0], np.stack([PIXELS[0]] * 3))
    assert np.array_equal(found.pixels[39], PIXELS[:3])


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (png(PIXELS[0][:4]), "line 40 is 4 x 8, the first image 8 x 8"),
        (png(PIXELS[0].astype(np.uint16)), "line 40 has pixels of the kind 'I;16'"),
        (ENCODED[0][:60], "line 40: the image cannot be decoded|is no image"),
        (b"GIF89a" + bytes(50), "line 40 is no image of a known kind: PNG"),
        (b"", "line 40 is no image"),
        (None, "line 40 has no bytes"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, image: Any, match: str) -> None:
    path = write_parquet(tmp_path / "d.parquet", image=[*ENCODED[:39], image], label=NAMES)
    with pytest.raises(InvalidInput, match=match) as caught:
        read(path)
    assert caught.value.field == "data.image"


def test_an_image_that_claims_too_much_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "MAX_PIXEL_BYTES", 1_000_000)
    bomb = png(np.zeros((3000, 3000), np.uint8))
    assert len(bomb) < 20_000
    path = write_parquet(tmp_path / "d.parquet", image=[bomb] * 40, label=NAMES)
    with pytest.raises(InvalidInput, match="more than 1000000 bytes of pixels"):
        read(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidInput, match="line 1: the image is too large"):
        read(path)


def test_an_encoded_image_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 20)
    with pytest.raises(InvalidInput, match="line 1: the image has more than 20 bytes"):
        read(write_listing(tmp_path, images_in()))


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "a/../b.png", ".hidden.png", "a//b.png", "a/b/c/d/e.png",
     "a\\b.png", "", "x" * 201, 3, None],
)  # fmt: skip
def test_a_listing_names_no_file_outside_its_folder(tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret.png").write_bytes(ENCODED[0])
    lines = [{"image": name, "label": "cat"}]
    path = write_listing(tmp_path / "folder", images_in(), lines)
    for look in (lambda: read(path), lambda: listed_files(path, "image")):
        with pytest.raises(InvalidInput, match=r"line 1: .* is no name of an image") as caught:
            look()
        assert caught.value.field == "data.image"


def test_a_listed_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_listing(tmp_path, images_in())
    (tmp_path / "images" / "007.png").unlink()
    with pytest.raises(InvalidInput, match=r"line 8: there is no file 'images/007\.png'"):
        read(path)


def test_a_listing_tells_its_files_once_each_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"file": name, "label": "x"} for name in ("b.png", "a.png", "b.png")]
    path = write_listing(tmp_path, {}, lines)
    assert listed_files(path, "file") == ["b.png", "a.png"]
    monkeypatch.setattr(listing, "MAX_LISTED_FILES", 1)
    with pytest.raises(InvalidInput, match="more than 1 images; put so many into one Parquet"):
        listed_files(path, "file")
