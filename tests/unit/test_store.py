"""The records of a study: whole lines only, no record lost or doubled, one writer, and the lock goes with it."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.driver import in_flight
from search.errors import UserError
from search.record import Record
from search.store import Store, locked, write_atomically
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Fp32, Int8Static, Recipe
from tests.fakes import make_baseline, make_record

ROOT = Path(__file__).resolve().parents[2]
FP32 = [Recipe(image_size=64, prune=ChannelPrune(ratio=ratio)) for ratio in (0.1, 0.2, 0.3)]
INT8 = [recipe.model_copy(update={"quantize": Int8Static()}) for recipe in FP32]
RECORDS = [make_baseline(), make_record(FP32[0]), make_record(INT8[0], state="failed", reason="out of memory")]


def records_file(folder: Path) -> Path:
    return folder / "records.jsonl"


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert (store.records, store.started, store.baseline) == ({}, [], None)
    assert (store.searched, store.trials(), store.states()) == ([], 0, {})
    assert list(tmp_path.iterdir()) == []


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(RECORDS[:1])
    store.append(RECORDS[1:])
    store.append([])
    for found in (store, Store(tmp_path)):
        assert list(found.records.values()) == RECORDS
        assert found.baseline == RECORDS[0]
        assert found.searched == RECORDS[1:]
    assert records_file(tmp_path).read_bytes().count(b"\n") == 3


def test_a_record_says_when_it_was_stored(tmp_path: Path) -> None:
    before = time.time()
    store = Store(tmp_path)
    store.start(FP32[0])
    store.append([RECORDS[1].model_copy(update={"at": None}), RECORDS[2]])
    times = [record.at for record in Store(tmp_path).searched]
    assert before <= (times[0] or 0) <= time.time()
    assert times[1] == RECORDS[2].at
    started = json.loads((tmp_path / "started.jsonl").read_text())
    assert before <= started["at"] <= time.time()


def test_a_known_id_is_left_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(RECORDS)
    before = records_file(tmp_path).read_bytes()
    store.append([make_record(FP32[0], accuracy=0.99), RECORDS[2]])
    assert records_file(tmp_path).read_bytes() == before
    assert Store(tmp_path).records[FP32[0].id].measurement == RECORDS[1].measurement


def test_a_line_cut_at_any_byte_costs_that_line_alone(tmp_path: Path) -> None:
    first, last = RECORDS[1:]
    Store(tmp_path).append([first, last])
    whole = records_file(tmp_path).read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        records_file(tmp_path).write_bytes(whole[:length])
        cut = Store(tmp_path)
        assert list(cut.records.values()) == [first]
        cut.append([last])
        assert records_file(tmp_path).read_bytes() == whole


def test_a_torn_line_of_started_trials_is_cut_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.start(FP32[0])
    store.start(FP32[1])
    path = tmp_path / "started.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    again = Store(tmp_path)
    assert [entry.recipe for entry in again.started] == [FP32[0]]
    again.start(FP32[2])
    assert [entry.recipe for entry in Store(tmp_path).started] == [FP32[0], FP32[2]]
    assert all(entry.at is not None for entry in again.started)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """``front`` reads while the driver is in the middle of a write: what it cut off then would be lost."""
    store = Store(tmp_path)
    store.append(RECORDS)
    store.start(FP32[0])
    for name in ("records.jsonl", "started.jsonl"):
        torn = (tmp_path / name).read_bytes()[:-5]
        (tmp_path / name).write_bytes(torn)
        Store(tmp_path)
        assert (tmp_path / name).read_bytes() == torn


@pytest.mark.parametrize("character", ["\n", "\r", "\v", "\x1c", "\x85", "\u2028", "\u2029", "é", "\U0001f600"])
def test_a_reason_may_hold_any_character(tmp_path: Path, character: str) -> None:
    """Python's splitlines breaks at some that JSON does not escape."""
    record = make_record(FP32[0], state="failed", reason=f"before{character}after")
    Store(tmp_path).append([record, RECORDS[0]])
    assert list(Store(tmp_path).records.values()) == [record, RECORDS[0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_does_not_break_the_study(tmp_path: Path, value: float) -> None:
    Store(tmp_path).append([make_record(FP32[0], accuracy=value)])
    measured = Store(tmp_path).records[FP32[0].id].measurement
    assert measured is not None and measured.accuracy is not None
    assert measured.accuracy.value == pytest.approx(value, nan_ok=True)


def test_a_trial_is_a_trunk_and_the_baseline_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(
        [
            make_baseline(),
            make_record(FP32[0]),
            make_record(INT8[0], state="failed"),
            make_record(FP32[1], state="screened"),
            make_record(INT8[1], state="screened"),
            make_record(FP32[2], state="stopped"),
        ]
    )
    assert store.trials() == 3
    assert store.states() == {"complete": 1, "failed": 1, "screened": 2, "stopped": 1}


def test_in_flight_is_what_was_started_and_has_a_leaf_without_record(tmp_path: Path) -> None:
    quantize = [{"kind": "fp32"}, {"kind": "int8"}]
    prune = {"kind": "channels", "ratio": [0.1, 0.2, 0.3]}
    space = parse_space({"prune": prune, "quantize": quantize}, name="x", image_size=64)
    assert INT8[0] in space.leaves(FP32[0])
    store = Store(tmp_path)
    for recipe in (FP32[2], FP32[0], INT8[2], FP32[1]):  # trunk 2 was handed out twice: it was cut off and resumed
        store.start(recipe)
    assert [recipe.trunk_id for recipe in in_flight(store, space)] == [FP32[n].trunk_id for n in (2, 0, 1)]
    store.append([make_record(FP32[0]), make_record(INT8[0], state="failed"), make_record(FP32[2])])
    assert [recipe.trunk_id for recipe in in_flight(Store(tmp_path), space)] == [FP32[n].trunk_id for n in (2, 1)]
    store.append(make_record(recipe) for recipe in (INT8[2], FP32[1], INT8[1]))
    assert in_flight(Store(tmp_path), space) == []


def test_where_one_leaf_is_measured_the_others_are_not_missed(tmp_path: Path) -> None:
    space = parse_space({"quantize": [{"kind": "fp32"}, {"kind": "int8"}]}, name="x", image_size=64)
    store = Store(tmp_path)
    store.start(Recipe(image_size=64, quantize=Int8Static()))
    assert len(in_flight(store, space, leaves=False)) == 1
    store.append([make_record(Recipe(image_size=64, quantize=Int8Static()))])
    assert in_flight(store, space, leaves=False) == []
    assert len(in_flight(store, space)) == 1


HOLD = """
import sys, time
from pathlib import Path
from search.store import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_folder_has_one_writer_and_a_kill_frees_it(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"study is in use by another search; wait for it or choose another"):
            locked(folder).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with locked(folder):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_is_freed_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), locked(tmp_path):
        raise RuntimeError("broken")
    with locked(tmp_path), pytest.raises(UserError, match="in use"):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass


def test_an_atomic_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    write_atomically(path, "new ×")
    assert path.read_text(encoding="utf-8") == "new ×"
    assert [entry.name for entry in tmp_path.iterdir()] == ["front.json"]


def test_records_are_frozen_and_give_their_objectives_only_when_finished() -> None:
    record = make_record(Recipe(image_size=64, quantize=Fp32()), accuracy=0.5, latency=0.4, size=0.3)
    assert record.values(("accuracy", "latency")) == (0.5, 0.4)
    assert record.values(("size", "accuracy")) == (0.3, 0.5)
    for other in (
        make_record(FP32[0], accuracy=None),
        make_record(FP32[0], accuracy=math.nan),
        make_record(FP32[0], latency=math.inf),
        make_record(FP32[0], state="failed"),
        make_record(FP32[0], state="screened"),
        make_record(FP32[0], state="stopped"),
    ):
        assert other.values(("accuracy", "latency")) is None
    with pytest.raises(ValueError, match="frozen"):
        record.state = "failed"


def test_json_gives_a_record_back() -> None:
    for record in RECORDS:
        assert Record.model_validate_json(record.model_dump_json()) == record
