"""Images that are encoded (PNG, JPEG, WebP, BMP): in a Parquet column, or as files that JSON Lines
list. Their headers are read first: nothing is decoded before it is known to fit. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.data import images
from search.data.images import Images
from search.data.labels import name_classes
from search.data.listing import check_file_path
from search.data.tables import check_label, read_table
from search.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PICTURE_BYTES = 32 * 1024**2
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")

_Rows = Iterator[tuple[int, bytes, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """What all images of a file have in common."""

    num_rows: int
    num_channels: int
    height: int
    width: int

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.num_channels * self.height * self.width


def read_pictures(path: Path, suffix: str, columns: Mapping[str, str]) -> Images:
    """`columns` names `image`, its bytes or the name of its file, and `label`.

    Raises:
        InvalidInput: with `data`, `data.image` or `data.label` as the field.
    """
    names: list[str] = []
    pixels = _decode(path, suffix, columns, names)
    label_names = name_classes(names)
    index = {name: i for i, name in enumerate(label_names)}
    return Images(
        pixels=pixels, labels=tuple(index[name] for name in names), label_names=label_names
    )


def read_unlabelled_pictures(path: Path, suffix: str, columns: Mapping[str, str]) -> Images:
    """The same without labels.

    Raises:
        InvalidInput: there is no image; as above.
    """
    return Images(pixels=_decode(path, suffix, columns, None), labels=(), label_names=())


def _decode(
    path: Path, suffix: str, columns: Mapping[str, str], names: list[str] | None
) -> npt.NDArray[np.uint8]:
    """(rows, channels, height, width); the labels are added to `names`, where those are wanted."""
    size = _common_size(_rows(path, suffix, columns), names)
    pixels = np.empty((size.num_rows, size.num_channels, size.height, size.width), np.uint8)
    mode = "L" if size.num_channels == 1 else "RGB"
    for place, (line, content, _) in enumerate(_rows(path, suffix, columns)):
        with _opened(content, line) as picture:
            try:
                decoded = np.asarray(picture.convert(mode))
            except (OSError, ValueError, SyntaxError) as error:
                raise _undecodable(line, error) from None
        pixels[place] = decoded[None] if mode == "L" else decoded.transpose(2, 0, 1)
    return pixels


def _common_size(rows: _Rows, names: list[str] | None) -> _Size:
    """From the headers alone; one colour image makes all of them colour images."""
    num_rows, is_colour, first = 0, False, (0, 0)
    for line, content, label in rows:
        with _opened(content, line) as picture:
            size, mode = picture.size, picture.mode
        num_rows += 1
        first = first if num_rows > 1 else size
        if size != first:
            raise InvalidInput(
                "data.image",
                f"line {line} is {size[1]} x {size[0]}, the first image {first[1]} x {first[0]}: "
                "all must have the size that the model reads",
            )
        if mode not in (*GREY_MODES, *COLOUR_MODES):
            raise InvalidInput(
                "data.image", f"line {line} has pixels of the kind {mode!r}; 8 bits are read"
            )
        is_colour = is_colour or mode in COLOUR_MODES
        found = _Size(
            num_rows=num_rows, num_channels=3 if is_colour else 1, height=size[1], width=size[0]
        )
        if found.num_bytes > images.MAX_PIXEL_BYTES:
            raise InvalidInput(
                "data.image", f"has more than {images.MAX_PIXEL_BYTES} bytes of pixels"
            )
        if names is not None:
            names.append(check_label(label, line))
    if not num_rows:
        raise InvalidInput("data", "is empty: it has no row")
    return found


def _rows(path: Path, suffix: str, columns: Mapping[str, str]) -> _Rows:
    """Line, encoded image and label of each row."""
    for line, row in read_table(path, suffix, columns):
        image = row["image"]
        content = _file(path.parent, image, line) if suffix == ".jsonl" else image
        if not isinstance(content, bytes):
            raise InvalidInput("data.image", f"line {line} has no bytes of an image")
        if len(content) > MAX_PICTURE_BYTES:
            raise InvalidInput(
                "data.image", f"line {line}: the image has more than {MAX_PICTURE_BYTES} bytes"
            )
        yield line, content, row.get("label")


def _file(folder: Path, value: Any, line: int) -> bytes:
    path = folder / check_file_path(value, line)
    if not path.is_file():
        raise InvalidInput("data.image", f"line {line}: there is no file {value!r}")
    with path.open("rb") as file:
        return file.read(MAX_PICTURE_BYTES + 1)


def _opened(content: bytes, line: int) -> Image:
    """An image whose header was read, not its pixels."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InvalidInput(
            "data", "has encoded images, which need the package pillow: install snugnet[server]"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise InvalidInput(
            "data.image", f"line {line} is no image of a known kind: {', '.join(FORMATS)}"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InvalidInput("data.image", f"line {line}: the image is too large") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise _undecodable(line, error) from None


def _undecodable(line: int, error: Exception) -> InvalidInput:
    reason = " ".join(str(error).split())
    return InvalidInput("data.image", f"line {line}: the image cannot be decoded: {reason:.120}")
