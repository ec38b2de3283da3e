"""Logs in parts: whatever is appended, and wherever a kill falls, what is read back is the file's beginning."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.storage import logs
from search.storage.location import Location
from search.storage.logs import GrowingLog, cut, merged, read_log


class Killed(BaseException):
    """A kill in the middle of sending."""


class Dying(Location):
    """Writes so many files, then no more."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        self.left, self.bytes = left, 0

    def write(self, name: str, content: bytes) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.bytes += len(content)
        super().write(name, content)


def read_back(location: Location) -> bytes:
    with ThreadPoolExecutor(2) as pool:
        return b"".join(read_log(location, "records.jsonl", pool))


lines = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"") + b"\n"), max_size=12)


@given(lines, st.integers(0, 12))
def test_the_same_beginning_is_cut_alike(content: list[bytes], known: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "PART", 50)
        whole, first = cut(b"".join(content)), cut(b"".join(content[:known]))
    assert b"".join(whole) == b"".join(content)
    assert whole[: max(0, len(first) - 1)] == first[:-1]
    assert all(len(part) >= 50 for part in whole[:-1]) and all(part.endswith(b"\n") for part in whole)


@pytest.mark.parametrize("left", range(12))
def test_a_kill_leaves_a_beginning_and_the_next_driver_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(logs, "PART", 50)
    path, url = tmp_path / "records.jsonl", f"file://{tmp_path}/there"
    dying = Dying(url, left)
    log = GrowingLog(dying, path, [])
    with path.open("ab") as file:
        try:
            for number in range(30):
                file.write(json.dumps({"id": number}).encode() + b"\n")
                file.flush()
                if number % 3 == 0:
                    log.send(log.snapshot())
        except Killed:
            pass
    content = path.read_bytes()
    if left:
        Location(url).write("records.jsonl/.000000.1.tmp", b'{"id": "half')  # of a writer in the middle of it
    there = read_back(dying)
    assert content.startswith(there) and (left == 0) == (there == b"")
    with path.open("ab") as file:
        file.write(b'{"id": "torn')  # in the middle of being written
    with ThreadPoolExecutor(2) as pool:
        log = GrowingLog(Location(url), path, read_log(Location(url), "records.jsonl", pool))
    log.send(log.snapshot())
    assert read_back(Location(url)) == content


def test_a_record_costs_part_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PART", 1000)
    path = tmp_path / "records.jsonl"
    counting = Dying(f"file://{tmp_path}/there", -1)
    log = GrowingLog(counting, path, [])
    with path.open("ab") as file:
        for number in range(300):
            file.write(b"%098d\n" % number + b"\n")
            file.flush()
            log.send(log.snapshot())
    assert read_back(counting) == path.read_bytes()
    assert counting.bytes < 300 * 1100 * 0.7  # and not 300 times half of 30,000


@pytest.mark.parametrize(
    ("there", "here", "both"),
    [
        ([], [1, 2], [1, 2]),
        ([1, 2], [], [1, 2]),
        ([1, 2], [1], [1, 2]),
        ([1], [1, 2], [1, 2]),
        ([1, 3, 4], [1, 2, 3], [1, 3, 4, 2]),
    ],
)
def test_no_line_is_lost_where_two_folders_differ(there: list[int], here: list[int], both: list[int]) -> None:
    def text(ids: list[int], by: str) -> bytes:
        return b"".join(json.dumps({"id": i, "by": by if i > 1 else ""}).encode() + b"\n" for i in ids)

    found = merged("records.jsonl", text(there, "there"), text(here, "here"))
    assert [json.loads(line)["id"] for line in found.splitlines()] == both
    assert found.startswith((text(there, "there"), text(here, "here")))
    started = merged("started.jsonl", text([1, 3], ""), text([1, 2, 3], ""))
    assert [json.loads(line)["id"] for line in started.splitlines()] == [1, 3, 2]
