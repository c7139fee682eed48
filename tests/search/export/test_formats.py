from __future__ import annotations

import sys

import pytest

from search.export.formats import FORMATS


def test_no_two_formats_write_the_same_file() -> None:
    assert len({given.file for given in FORMATS.values()}) == len(FORMATS)


def test_what_a_machine_lacks_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = FORMATS["openvino-int8"]
    assert given.missing == ()
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert given.missing == ("nncf",)
    assert given.advice == "pip install 'snugnet[exports]'"
