"""Images of one size with a label each, from numpy's archives. Nothing pickled is read. No torch.

A file that claims to hold more than it may is refused by its headers, before it is unpacked.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from search.data.labels import class_summary, name_classes
from search.data.splits import Splits, split_by_class
from search.errors import InvalidInput
from search.model.checkpoint import PREPROCESSOR_FILE
from search.shape import ModelShape

MAX_PIXEL_BYTES = 1024**3
MAX_LABEL_BYTES = 256 * 1024**2
MAX_CHANNELS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """`pixels` is (rows, channels, height, width); `labels[i]` an index into `label_names`, none
    at all where nobody knows them."""

    pixels: npt.NDArray[np.uint8]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def num_channels(self) -> int:
        return int(self.pixels.shape[1])

    def summary(self) -> dict[str, Any]:
        _, channels, height, width = self.pixels.shape
        size = {"num_channels": channels, "height": height, "width": width}
        known = class_summary(self.labels, self.label_names)
        return {**known, "num_rows": len(self), **size}

    def split(self, seed: int) -> Splits:
        return split_by_class(self.labels, len(self.label_names), seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """By channel, of values from 0 to 1: the mean is subtracted, then the deviation divides."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8]) -> Normalisation:
        """What makes the channels of (rows, channels, height, width) alike."""
        values = np.arange(256) / 255
        mean, std = [], []
        for channel in range(pixels.shape[1]):
            counts = np.bincount(pixels[:, channel].ravel(), minlength=256)
            average = float(np.average(values, weights=counts))
            mean.append(average)
            variance = float(np.average((values - average) ** 2, weights=counts))
            # An empty channel has no deviation to divide by.
            std.append(variance**0.5 or 1.0)
        return cls(mean=tuple(mean), std=tuple(std))


def read_images(path: Path, suffix: str, columns: Mapping[str, str]) -> Images:
    """`columns` names the arrays `image`, uint8 (rows, height, width) or (rows, height, width,
    channels), and `label`, (rows,).

    Raises:
        InvalidInput: with `data`, `data.image` or `data.label` as the field.
    """
    del suffix
    with _opened(path) as archive:
        pixels = _read_array(archive, columns["image"], "data.image", MAX_PIXEL_BYTES)
        labels = _read_array(archive, columns["label"], "data.label", MAX_LABEL_BYTES)
    pixels = _as_pixels(pixels)
    names = _label_names(labels, len(pixels))
    label_names = name_classes(names)
    index = {name: i for i, name in enumerate(label_names)}
    return Images(
        pixels=pixels, labels=tuple(index[name] for name in names), label_names=label_names
    )


def read_unlabelled_images(path: Path, suffix: str, columns: Mapping[str, str]) -> Images:
    """The same without labels, whatever the archive has beside `image`.

    Raises:
        InvalidInput: there is no image; as above.
    """
    del suffix
    with _opened(path) as archive:
        pixels = _read_array(archive, columns["image"], "data.image", MAX_PIXEL_BYTES)
    images = Images(pixels=_as_pixels(pixels), labels=(), label_names=())
    if not len(images):
        raise InvalidInput("data", "is empty: it has no row")
    return images


def check_image_size(
    summary: Mapping[str, Any], shape: ModelShape, field: str = "data.image"
) -> None:
    """Raises: InvalidInput when images of this summary are not what the model reads."""
    given = summary["num_channels"], summary["height"], summary["width"]
    wanted = shape.num_channels, shape.image_size, shape.image_size
    if given != wanted:
        raise InvalidInput(
            field,
            f"the images are {_describe(*given)}, but the model reads {_describe(*wanted)}",
        )


def read_normalisation(folder: Path, num_channels: int) -> Normalisation | None:
    """What a model folder says of how its images were normalised; None where it says nothing.

    Raises:
        InvalidInput: it says something that cannot be done.
    """
    path = folder / PREPROCESSOR_FILE
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(PREPROCESSOR_FILE, f"is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInput(PREPROCESSOR_FILE, "must hold a JSON object")
    if config.get("do_normalize") is False:
        return Normalisation(mean=(0.0,) * num_channels, std=(1.0,) * num_channels)
    if "image_mean" not in config and "image_std" not in config:
        return None
    mean, std = (_numbers(config, key, num_channels) for key in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise InvalidInput(PREPROCESSOR_FILE, f"image_std must be above 0, got {list(std)}")
    return Normalisation(mean=mean, std=std)


def _numbers(config: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = config.get(key)
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) in (int, float) and abs(value) < 1e6 for value in values)
    ):
        raise InvalidInput(
            PREPROCESSOR_FILE, f"{key} must be a list of {count} numbers, got {values!r:.80}"
        )
    return tuple(map(float, values))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidInput("data", f"is not an archive of numpy's savez: {error}") from None


def _read_array(
    archive: zipfile.ZipFile, name: str, field: str, max_bytes: int
) -> npt.NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        found = ", ".join(repr(n.removesuffix(".npy")) for n in archive.namelist()[:20])
        raise InvalidInput(
            field, f"array {name!r} is missing; the file has {found or 'none'}"
        ) from None
    with archive.open(info) as file:
        size, is_fortran, dtype = _read_header(file, name, field)
        num_bytes = prod(size) * dtype.itemsize
        if num_bytes > max_bytes:
            raise InvalidInput(field, f"array {name!r} has more than {max_bytes} bytes")
        # Archives that unpack to more than they say stop here: no more than this is read.
        content = file.read(num_bytes)
    if len(content) < num_bytes:
        raise InvalidInput(field, f"array {name!r} ends before its {num_bytes} bytes")
    values: npt.NDArray[Any] = np.frombuffer(content, dtype)
    return values.reshape(size[::-1]).T if is_fortran else values.reshape(size)


def _read_header(
    file: IO[bytes], name: str, field: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Size, order and type of numbers of an array (NEP 1), without the array."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        size, is_fortran, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise InvalidInput(field, f"{name!r} is not a numpy array: {error}") from None
    if min(size, default=0) < 0:
        raise InvalidInput(field, f"{name!r} is not a numpy array: its size is {size}")
    if dtype.hasobject:
        raise InvalidInput(
            field, f"array {name!r} holds Python objects, which can run code when they are read"
        )
    return size, is_fortran, dtype


def _as_pixels(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(rows, channels, height, width)."""
    if images.dtype != np.uint8:
        raise InvalidInput(
            "data.image", f"pixels must be uint8, from 0 to 255, not {images.dtype}"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and 1 <= images.shape[3] <= MAX_CHANNELS:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise InvalidInput(
        "data.image",
        "must be (rows, height, width) or (rows, height, width, channels), "
        f"this is {images.shape}",
    )


def _label_names(labels: npt.NDArray[Any], num_images: int) -> list[str]:
    if labels.shape != (num_images,):
        raise InvalidInput(
            "data.label", f"must be one label for each of {num_images} images, not {labels.shape}"
        )
    if labels.dtype.kind not in "iuU":
        raise InvalidInput(
            "data.label", f"must be whole numbers or words of unicode, not {labels.dtype}"
        )
    names = [str(label).strip() for label in labels]
    if not all(names):
        raise InvalidInput("data.label", f"image {names.index('') + 1} has an empty label")
    return names


def _describe(channels: int, height: int, width: int) -> str:
    return f"{height} x {width} with {channels} channel{'s' if channels > 1 else ''}"
