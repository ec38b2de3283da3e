"""Results of stages: made once, whole or not there, never too many, whoever else works in the folder."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from search.cache import LEFT_OVER, StageCache, stage_name


def save(text: str, path: Path) -> None:
    path.write_text(text)


def fill(path: Path, size: int) -> None:
    path.write_bytes(b"0" * size)


def test_a_result_is_made_once_and_found_by_others(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "result"

    for _ in range(2):
        assert StageCache(tmp_path).get("a", make, load=Path.read_text, save=save) == "result"
    assert len(made) == 1
    assert StageCache(tmp_path).find("b", Path.read_text) is None
    StageCache(tmp_path).drop("a")
    assert StageCache(tmp_path).find("a", Path.read_text) is None


def test_names_follow_from_all_content_in_any_order() -> None:
    name = stage_name("train", epochs=3, part={"lr": 0.1, "batch": 4})
    assert name.startswith("train-")
    assert stage_name("train", part={"batch": 4, "lr": 0.1}, epochs=3) == name
    assert len({name, stage_name("train", epochs=4), stage_name("scan", epochs=3), stage_name("train")}) == 4


def test_names_follow_from_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    name = stage_name("train", epochs=3)
    monkeypatch.setattr("search.cache.code_version", lambda: "other")
    assert stage_name("train", epochs=3) != name


def test_what_breaks_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        StageCache(tmp_path).put("a", broken)
    assert not list(tmp_path.iterdir())


def test_the_results_that_were_not_used_for_longest_go(tmp_path: Path) -> None:
    cache = StageCache(tmp_path, max_bytes=35)
    for index, name in enumerate("abc"):
        cache.put(name, lambda path: fill(path, 10))
        os.utime(tmp_path / name, (1000.0 + index, 1000.0 + index))
    assert cache.find("a", Path.read_bytes)  # used just now, so b is the oldest
    cache.put("d", lambda path: fill(path, 10))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d"}
    cache.put("e", lambda path: fill(path, 100))
    assert {path.name for path in tmp_path.iterdir()} == {"e"}  # too large alone, and still what was just made


def test_files_of_killed_writers_go_after_a_day_and_not_before(tmp_path: Path) -> None:
    for name, age in {"old.tmp": LEFT_OVER + 60, "new.tmp": 60.0}.items():
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    StageCache(tmp_path).put("a", lambda path: save("whole", path))
    assert {path.name for path in tmp_path.iterdir()} == {"new.tmp", "a"}


def work(folder: Path, seed: int) -> None:
    cache = StageCache(folder, max_bytes=40_000)
    for step in range(150):
        name = f"{(seed + step) % 12}"
        found = cache.get(name, lambda name=name: name * 4000, load=Path.read_text, save=save)
        assert found == name * 4000


def test_many_writers_readers_and_removers_never_see_half_a_result(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert not list(tmp_path.glob("*.tmp"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 40_000
