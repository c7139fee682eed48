"""Readers in processes of their own: whatever a file does, the answer names it, nothing stays."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import InvalidInput
from service.uploads.checks.inspector import Inspector, NoLongerWanted, ReaderLost
from service.uploads.checks.limits import Limits
from service.uploads.checks.reading import Reading, read_here
from tests.search.data.encoded import images_in, write_listing, write_parquet
from tests.search.model.folders import header_of, tensor_shapes, write_model, write_tensors
from tests.service.serving import files_in, write_data

MODULES = "tests.service.uploads.checks.modules"
MIB = 1024**2


def inspector(
    tmp_path: Path, module: str = "", *, memory_mib: int = 400, seconds: float = 60.0
) -> Inspector:
    limits = Limits(memory_bytes=memory_mib * MIB, seconds=seconds)
    options = {"module": f"{MODULES}.{module}"} if module else {}
    return Inspector(limits, num_processes=1, scratch=tmp_path / "scratch", **options)


def table(path: Path, task: str = "text-classification", kind: str = "dataset") -> Reading:
    return Reading(kind=kind, files={path.name: str(path)}, task=task)


def model(folder: Path) -> Reading:
    return Reading(kind="model", files={path.name: str(path) for path in folder.iterdir()})


def refused(found_by: Inspector, reading: Reading, field: str, match: str, at: Path) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        found_by.inspect(reading)
    assert caught.value.field == field
    assert not files_in(at / "scratch")


def test_a_process_of_its_own_finds_what_this_one_does(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    listing = write_listing(folder, images_in("some/more"))
    names = [listing.name, *images_in("some/more")]
    pictures = Reading(
        kind="unlabelled",
        files={name: str(folder / name) for name in names},
        task="image-classification",
    )
    readings = [
        table(write_data(tmp_path / "data.csv")),
        model(write_model(tmp_path / "model")),
        pictures,
    ]
    found_by = inspector(tmp_path)
    for reading in readings:
        assert found_by.inspect(reading) == read_here(reading)
    assert not list((tmp_path / "scratch").iterdir())


# --- files that mean harm -----------------------------------------------------------------------


def _bomb(folder: Path) -> Path:
    """A long text that every row names: a few kilobytes that unpack to 10 GB."""
    rows = pa.array([0] * 10_000, pa.int32())
    texts = pa.DictionaryArray.from_arrays(rows, pa.array(["x" * 1_000_000]))
    return write_parquet(folder / "d.parquet", text=texts, label=[0, 1] * 5000)


def _wide(folder: Path) -> Path:
    path = folder / "d.csv"
    path.write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n")
    return path


def _deep(folder: Path) -> Path:
    path = folder / "d.jsonl"
    path.write_text('{"text": ' + "[" * 5_000_000)
    return path


def _one_line(folder: Path) -> Path:
    path = folder / "d.csv"
    with path.open("wb") as file:
        file.truncate(500 * MIB)  # zeros without an end of a line, and without a place on the disk
    return path


def _many_texts(folder: Path) -> Path:
    path = folder / "d.jsonl"
    line = json.dumps({"text": "x" * 1000, "label": "a"})
    path.write_text((line + "\n") * 250_000)
    return path


def _pickle(folder: Path) -> Path:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "sprung",)

    path = folder / "d.parquet"
    path.write_bytes(pickle.dumps(Trap()))
    return path


@pytest.mark.parametrize(
    ("make", "field", "match"),
    [
        (_bomb, "data", "memory|unpacks to more"),
        (_wide, "data", "has 1000000 columns; at most 10000"),
        (_deep, "data", "line 1 is not valid JSON"),
        (_one_line, "data", "line 1 has more than 33554432 bytes"),
        (_many_texts, "data", "cannot be read within 314572800 bytes of memory"),
        (_pickle, "data", "is not a Parquet file"),
    ],
)
def test_a_table_that_means_harm_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], field: str, match: str
) -> None:
    refused(inspector(tmp_path, memory_mib=300), table(make(tmp_path)), field, match, tmp_path)
    assert not (tmp_path / "sprung").exists()


def _lying(header: dict[str, Any] | bytes) -> Callable[[Path], None]:
    def lie(folder: Path) -> None:
        write_tensors(folder / "model.safetensors", header, 10_000)

    return lie


def _overlap(folder: Path) -> None:
    header = header_of(tensor_shapes())
    for entry in header.values():
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [0, size]
    write_tensors(folder / "model.safetensors", header)


def _deep_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000)


def _pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": [1, 2]}) * 100)


@pytest.mark.parametrize(
    ("damage", "field", "match"),
    [
        (_overlap, "model.safetensors", "overlaps the one before"),
        (_lying(b'{"a":1,"a":1}'), "model.safetensors", "a key is given twice"),
        (_lying(b" " * (8 * MIB + 1)), "model.safetensors", "at most 8388608 are allowed"),
        (_deep_config, "config.json", "is not valid JSON"),
        (_pickled_weights, "model.safetensors", "is not a safetensors file"),
    ],
)
def test_a_model_that_means_harm_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], field: str, match: str
) -> None:
    folder = write_model(tmp_path / "model")
    damage(folder)
    refused(inspector(tmp_path), model(folder), field, match, tmp_path)


@given(data=st.binary(min_size=1, max_size=60), share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_a_damaged_parquet_file_is_refused_or_read_whatever_it_does_to_its_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, share: float
) -> None:
    """Not in this process: the library has ended one for a single wrong byte of a footer."""
    folder = tmp_path_factory.getbasetemp()
    labels = [i % 2 for i in range(60)]
    path = write_parquet(folder / "d.parquet", text=[f"text {i}" for i in labels], label=labels)
    content = bytearray(path.read_bytes())
    at = int(share * len(content))
    content[at : at + len(data)] = data
    path.write_bytes(content)
    with suppress(InvalidInput):
        inspector(folder).inspect(table(path))


# --- readers that go wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ("SIGSEGV", r"the reader crashed \(SIGSEGV\)"),
        ("SIGABRT", r"the reader crashed \(SIGABRT\)"),
        ("SIGXCPU", "within 60 seconds"),
    ],
)
def test_a_crash_is_the_files_doing(tmp_path: Path, task: str, match: str) -> None:
    path = write_data(tmp_path / "data.csv")
    refused(inspector(tmp_path, "crashing"), table(path, task), "data", match, tmp_path)


@pytest.mark.parametrize("task", ["SIGKILL", "SIGTERM", "3"])
def test_a_process_that_was_ended_from_outside_says_nothing_of_the_file(
    tmp_path: Path, task: str
) -> None:
    path = write_data(tmp_path / "data.csv")
    with pytest.raises(ReaderLost):
        inspector(tmp_path, "crashing").inspect(table(path, task))


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_that_does_not_end_is_ended(tmp_path: Path) -> None:
    path, told = write_data(tmp_path / "data.csv"), tmp_path / "told"
    found_by = inspector(tmp_path, "sleeping", seconds=1.0)
    refused(found_by, table(path, str(told)), "data", "cannot be read within 1 seconds", tmp_path)
    (pid,) = pids_in(told)
    assert not is_alive(pid)


def test_a_reading_that_is_not_wanted_any_more_ends(tmp_path: Path) -> None:
    path, told = write_data(tmp_path / "data.csv"), tmp_path / "told"
    with pytest.raises(NoLongerWanted):
        inspector(tmp_path, "sleeping").inspect(
            table(path, str(told)), tick_seconds=0.05, is_wanted=lambda: not pids_in(told)
        )
    (pid,) = pids_in(told)
    assert not is_alive(pid)


ASKING = """
import sys
from pathlib import Path
from tests.service.uploads.checks.test_inspector import inspector, table
folder, module = Path(sys.argv[1]), sys.argv[2]
inspector(folder, module).inspect(table(folder / "data.csv", str(folder / "told")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own signal for it is Linux's")
def test_no_reader_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    write_data(tmp_path / "data.csv")
    server = subprocess.Popen([sys.executable, "-c", ASKING, str(tmp_path), "sleeping"])
    until(lambda: bool(pids_in(tmp_path / "told")))
    (pid,) = pids_in(tmp_path / "told")
    server.send_signal(signal.SIGKILL)
    server.wait()
    until(lambda: not is_alive(pid))


# --- what a reader can get at -------------------------------------------------------------------


def test_a_reader_sees_no_secret_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SNUGNET_DATABASE_URL", "HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    path = write_data(tmp_path / "data.csv")
    found = inspector(tmp_path, "confessing").inspect(table(path, "1", "unlabelled"))
    assert not {n for n in found["variables"] if n.startswith(("SNUGNET", "HTTP", "AWS"))}
    refused(
        inspector(tmp_path, "confessing"), table(path, "1"), "data", "tried to write", tmp_path
    )


CAN_LEAVE = (
    "from service.uploads.checks.limits import leave_the_network as l; raise SystemExit(not l())"
)


def test_a_reader_reaches_nothing_where_the_kernel_lets_it_leave_the_network(
    tmp_path: Path,
) -> None:
    path = write_data(tmp_path / "data.csv")
    can_leave = subprocess.run([sys.executable, "-c", CAN_LEAVE], check=False).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reading = table(path, str(listener.getsockname()[1]), "unlabelled")
        found = inspector(tmp_path, "confessing").inspect(reading)
    assert found["network"] == ("refused" if can_leave else "reached")
