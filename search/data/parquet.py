"""Parquet files, read a few rows at a time; the footer says first whether they may be read at all.

What a footer does not show (a dictionary of one long text, named by a million rows) shows while
rows are read: they stop where they pass what may be unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import FileMetaData, ParquetFile

MAX_ROWS = 10_000_000
MAX_COLUMNS = 10_000
MAX_DECODED_BYTES = 2 * 1024**3
MAX_DEPTH = 8
BATCH_ROWS = 256
EXTENSION_KEY = b"ARROW:extension:name"
# An image as `datasets` stores it: a struct of the encoded file and where it once was.
IMAGE_KEY = "bytes"

Row = tuple[int, dict[str, Any]]


def read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """Number of each row, from 1, and its values by role.

    Raises:
        InvalidInput: with `data` as the field, or `data.` and the role.
    """
    with _opened(path) as file:
        _check_footer(file.metadata)
        wanted = [_column(file.schema_arrow, name, role) for role, name in columns.items()]
        _check_sizes(file.metadata)
        yield from _rows(file, columns, wanted)


def _rows(file: ParquetFile, columns: Mapping[str, str], wanted: list[str]) -> Iterator[Row]:
    number, decoded_bytes = 0, 0
    for batch in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
        decoded_bytes += batch.nbytes
        if decoded_bytes > MAX_DECODED_BYTES:
            raise InvalidInput("data", f"unpacks to more than {MAX_DECODED_BYTES} bytes")
        values = {role: batch.column(name).to_pylist() for role, name in columns.items()}
        for place in range(batch.num_rows):
            number += 1
            yield number, {role: _bare(column[place]) for role, column in values.items()}


def _bare(value: Any) -> Any:
    return value.get(IMAGE_KEY) if isinstance(value, dict) else value


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InvalidInput(
            "data", "is Parquet, which needs the package pyarrow: install snugnet[server]"
        ) from None
    try:
        with ParquetFile(path, pre_buffer=False) as file:
            yield file
    except MemoryError:
        raise InvalidInput("data", "needs more memory than there is to be unpacked") from None
    except UnicodeDecodeError:
        raise InvalidInput("data", "has a text that is not UTF-8") from None
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(
            "data", f"is not a Parquet file that can be read: {reason:.200}"
        ) from None


def _check_footer(footer: FileMetaData) -> None:
    if footer.num_columns > MAX_COLUMNS:
        raise InvalidInput(
            "data", f"has {footer.num_columns} columns; at most {MAX_COLUMNS} are read"
        )
    if footer.num_rows > MAX_ROWS:
        raise InvalidInput("data", f"has {footer.num_rows} rows; at most {MAX_ROWS} are read")


def _check_sizes(footer: FileMetaData) -> None:
    """What the footer says that all pages unpack to. Of groups alone: the library ends the process
    that asks for the sizes of a column whose entry is damaged."""
    groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
    total_bytes = sum(max(0, group.total_byte_size) for group in groups)
    if total_bytes > MAX_DECODED_BYTES:
        raise InvalidInput(
            "data",
            f"has {total_bytes} bytes when it is unpacked; at most {MAX_DECODED_BYTES} are read",
        )


def _column(schema: pyarrow.Schema, name: str, role: str) -> str:
    """The path of what is read of a column."""
    field_of_role = f"data.{role}"
    places = schema.get_all_field_indices(name)
    if len(places) != 1:
        problem = "is given twice" if places else "is missing"
        found = ", ".join(map(repr, schema.names[:20]))
        raise InvalidInput(field_of_role, f"column {name!r} {problem}; the file has {found}")
    field = schema.field(places[0])
    if not _is_plain(field):
        raise InvalidInput(
            field_of_role,
            f"column {name!r} is of the type {field.type!s:.80}; texts, whole numbers, truth "
            "values, lists of these and the bytes of images are read",
        )
    return f"{name}.{IMAGE_KEY}" if _is_image(field.type) else name


def _is_plain(field: pyarrow.Field, depth: int = 0) -> bool:
    """Never an extension type: those bring code of their own."""
    from pyarrow import BaseExtensionType, types

    kind = field.type
    if depth > MAX_DEPTH or isinstance(kind, BaseExtensionType):
        return False
    if EXTENSION_KEY in (field.metadata or {}):
        return False
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_field, depth + 1)
    if types.is_dictionary(kind):
        kind = kind.value_type
    return _is_value(kind) or _is_image(kind)


def _is_value(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_integer,
            types.is_boolean,
            types.is_binary,
            types.is_large_binary,
        )
    )


def _is_image(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index(IMAGE_KEY) < 0:
        return False
    content = kind.field(IMAGE_KEY).type
    return bool(types.is_binary(content) or types.is_large_binary(content))
