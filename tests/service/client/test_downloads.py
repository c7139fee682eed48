"""Downloads from a server whose connections break, and whose bytes are sometimes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from service.client import AlreadyDownloading, Client, Corrupted, Unreachable
from service.client.downloads import Download
from tests.service.client.scripted import Call, FaultyFile, serving_file

Connect = Callable[..., Call]

MIB = 1 << 20
CONTENT = random.Random(0).randbytes(9 * MIB + 77)


def file(**options: object) -> FaultyFile:
    return FaultyFile(content=CONTENT, **options)  # type: ignore[arg-type]


def parts_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.part"))


def test_a_connection_that_breaks_again_and_again_costs_nothing_twice(
    connect: Connect, tmp_path: Path
) -> None:
    with serving_file(file(cuts=[2 * MIB] * 4)) as served:
        (path,) = connect(served.url, max_tries=2)("download", "j", tmp_path)
    assert path.read_bytes() == CONTENT
    assert [path] == list(tmp_path.iterdir())
    starts = [int(text.removeprefix("bytes=").rstrip("-") or 0) for text in served.ranges]
    assert len(starts) == 5
    assert starts == sorted(set(starts))
    assert starts[-1] > 7 * MIB


def test_a_later_process_goes_on_where_the_first_one_stopped(
    connect: Connect, tmp_path: Path
) -> None:
    with serving_file(file(cuts=[3 * MIB])) as served:
        with pytest.raises(Unreachable, match=r"model\.onnx\.[0-9a-f]{12}\.part keeps what has"):
            connect(served.url, max_tries=1)("download", "j", tmp_path)
        (part,) = parts_in(tmp_path)
        kept = part.stat().st_size
        assert CONTENT.startswith(part.read_bytes())
        (path,) = connect(served.url)("download", "j", tmp_path)
    assert served.ranges == ["", f"bytes={kept}-"]
    assert path.read_bytes() == CONTENT
    assert parts_in(tmp_path) == []


def test_it_is_told_how_far_each_file_is(connect: Connect, tmp_path: Path) -> None:
    told: list[tuple[Path, int]] = []
    with serving_file(file(cuts=[3 * MIB])) as served:
        connect(served.url)(
            "download", "j", tmp_path, on_progress=lambda path, size: told.append((path, size))
        )
    assert {path for path, _ in told} == {tmp_path / "model.onnx"}
    sizes = [size for _, size in told]
    assert sizes[-1] == len(CONTENT)
    assert sizes == sorted(sizes)


def test_a_file_that_is_there_is_not_fetched_again(connect: Connect, tmp_path: Path) -> None:
    with serving_file(file()) as served:
        for _ in range(2):
            connect(served.url)("download", "j", tmp_path)
        assert served.ranges == [""]
        (tmp_path / "model.onnx").write_bytes(b"damaged")
        connect(served.url)("download", "j", tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_download_that_had_all_but_its_name_is_not_fetched_again(tmp_path: Path) -> None:
    with serving_file(file()) as served, Client(served.url) as client:
        part = Download("x", tmp_path / "model.onnx", served.sha256).part
        part.write_bytes(CONTENT)
        client.download("j", tmp_path)
        assert served.ranges == []
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_of_damaged_content_only_the_damaged_chunk_is_fetched_again(
    connect: Connect, tmp_path: Path
) -> None:
    with serving_file(file(chunk_bytes=2 * MIB, flips=[5 * MIB])) as served:
        (path,) = connect(served.url)("download", "j", tmp_path)
    assert path.read_bytes() == CONTENT
    assert served.ranges == ["", f"bytes={4 * MIB}-"]


def test_damage_in_the_last_chunk_is_found_as_well(connect: Connect, tmp_path: Path) -> None:
    with serving_file(file(chunk_bytes=2 * MIB, flips=[9 * MIB])) as served:
        (path,) = connect(served.url)("download", "j", tmp_path)
    assert path.read_bytes() == CONTENT
    assert served.ranges == ["", f"bytes={8 * MIB}-"]


def test_damage_on_the_disk_is_found_before_going_on(tmp_path: Path) -> None:
    with serving_file(file(chunk_bytes=2 * MIB)) as served, Client(served.url) as client:
        part = Download("x", tmp_path / "model.onnx", served.sha256).part
        damaged = bytearray(CONTENT[: 7 * MIB])
        damaged[3 * MIB] ^= 1
        part.write_bytes(damaged)
        client.download("j", tmp_path)
        assert served.ranges == [f"bytes={2 * MIB}-"]
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_without_digests_damaged_content_is_fetched_again_as_a_whole(
    connect: Connect, tmp_path: Path
) -> None:
    with serving_file(file(flips=[MIB])) as served:
        (path,) = connect(served.url)("download", "j", tmp_path)
    assert path.read_bytes() == CONTENT
    assert served.ranges == ["", ""]


def test_content_that_stays_damaged_is_never_kept(connect: Connect, tmp_path: Path) -> None:
    for chunk_bytes in (0, 2 * MIB):
        with (
            serving_file(file(chunk_bytes=chunk_bytes, flips=[7] * 9)) as served,
            pytest.raises(Corrupted, match=r"model\.onnx arrived with another SHA-256"),
        ):
            connect(served.url, max_tries=3)("download", "j", tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_the_whole_again(connect: Connect, tmp_path: Path) -> None:
    with serving_file(file(cuts=[MIB], has_ranges=False)) as served:
        (path,) = connect(served.url)("download", "j", tmp_path)
    assert path.read_bytes() == CONTENT
    assert len(served.ranges) == 2


def test_a_part_that_is_too_long_is_begun_anew(tmp_path: Path) -> None:
    with serving_file(file()) as served, Client(served.url, backoff_s=0.001) as client:
        part = Download("x", tmp_path / "model.onnx", served.sha256).part
        part.write_bytes(CONTENT + b"more")
        client.download("j", tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_two_downloads_of_one_file_do_not_mix(tmp_path: Path) -> None:
    with serving_file(file()) as served, Client(served.url) as client:
        other = Download("x", tmp_path / "model.onnx", served.sha256)
        other.open()
        with other, pytest.raises(AlreadyDownloading, match=r"downloading model\.onnx"):
            client.download("j", tmp_path)
        client.download("j", tmp_path)
    assert parts_in(tmp_path) == []
