"""Why a network could not be written in a format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from search.errors import SnugnetError


class ExportFailed(SnugnetError):
    """A converter refuses a network, or what it made does not load; the message has its reason."""

    code = "export_failed"


class ParityError(ExportFailed):
    """The exported file answers otherwise than the trained network."""

    code = "parity"


@contextmanager
def converting(what: str) -> Iterator[None]:
    """Errors of a library within are raised as `ExportFailed`; ours go through."""
    try:
        yield
    except SnugnetError:
        raise
    except Exception as error:  # the libraries' own errors share no other base
        raise ExportFailed(f"{what}: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    """Converters append graphs and stacks of many pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__
