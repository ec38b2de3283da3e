"""Records and their files on their way into a study, with everything that can come between."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from search.artifact import write_artifact
from search.errors import FaultError
from search.faults import mark
from search.measure.parcel import pack
from search.record import Record
from search.recorder import Recorder
from search.store import Store
from search.trial import Task
from spaces.recipe import Finetune, Int8Static, Recipe
from tests.fakes import make_record
from tests.fullness import fill, small_disk
from tests.tiny import files_below

LEAVES = (
    Recipe(image_size=64, finetune=Finetune(epochs=2)),
    Recipe(image_size=64, finetune=Finetune(epochs=2), quantize=Int8Static()),
)


class Progress:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[list[Record], str]] = []

    def stage(self, text: str) -> None:
        raise AssertionError

    def trial_ended(self, recipe: Recipe, records: list[Record], reason: str) -> None:
        self.heard.append((records, reason))


class Study:
    """A study folder with its recorder, and a trial that writes files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.progress = folder, Progress()
        token = mark(folder)
        (folder / "artifacts").mkdir(exist_ok=True)
        self.recorder = Recorder(Store(folder), self.progress, folder, token)
        self.trial = SimpleNamespace(trial_id="t1", config={"task": Task(leaves=LEAVES).model_dump_json()})

    def stored(self) -> list[str]:
        return [record.id for record in Store(self.folder).searched]

    def result(self, **content: Any) -> dict[str, Any]:
        self.recorder.on_trial_result(0, [], self.trial, content)
        return content

    def checkpoint(self, out: Path) -> None:
        self.recorder.on_checkpoint(0, [], self.trial, tune.Checkpoint.from_directory(str(out)))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study")


def written(out: Path, content: bytes = b"weights") -> str:
    """What a trial reports, with the files of its records below ``out``."""
    records = []
    out.mkdir()
    for leaf in LEAVES:
        record = make_record(leaf)
        assert record.measurement is not None
        (out / "model.onnx").write_bytes(content + leaf.id.encode())
        artifact = write_artifact(
            leaf.id, out / "model.onnx", recipe=leaf, measurement=record.measurement, folder=out
        )  # fmt: skip
        (out / "model.onnx").unlink()
        records.append(record.model_copy(update={"artifact": artifact}))
    return as_json(records)


def as_json(records: list[Record]) -> str:
    return json.dumps([record.model_dump(mode="json") for record in records])


def test_records_come_after_the_files_of_their_checkpoint(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reported = written(out)
    expected = files_below(out)
    study.result(records=reported, delivered="checkpoint")
    assert study.stored() == [] and study.progress.heard == []
    study.checkpoint(out)
    assert study.stored() == [leaf.id for leaf in LEAVES]
    assert {k: v for k, v in files_below(study.folder).items() if k.startswith("artifacts/")} == expected
    assert not out.exists()  # the checkpoint is not kept twice
    assert len(study.progress.heard) == 1


def test_files_may_come_in_the_result_itself(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reported = written(out)
    result = study.result(records=reported, delivered=pack(out))
    assert study.stored() == [leaf.id for leaf in LEAVES]
    assert {k: v for k, v in files_below(study.folder).items() if k.startswith("artifacts/")} == files_below(out)
    assert "delivered" not in result  # Tune would keep it


def test_a_trial_that_reports_again_changes_nothing(study: Study, tmp_path: Path) -> None:
    """It was tried again after its node died, and the first report had come through."""
    for name, content in (("one", b"first"), ("two", b"second")):
        reported = written(tmp_path / name, content)
        study.result(records=reported, delivered="checkpoint")
        study.checkpoint(tmp_path / name)
    assert study.stored() == [leaf.id for leaf in LEAVES]
    assert b"first" in (study.folder / "artifacts" / LEAVES[0].id / "model.onnx").read_bytes()


def test_a_driver_that_is_killed_between_the_two_leaves_what_the_next_one_replaces(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def kill(self: Store, records: Any) -> None:
        raise KilledError

    reported = written(tmp_path / "one", b"first")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", kill)
        with pytest.raises(KilledError):
            study.result(records=reported, delivered=pack(tmp_path / "one"))
    assert study.stored() == []
    again = Study(study.folder)
    reported = written(tmp_path / "two", b"second")
    again.result(records=reported, delivered=pack(tmp_path / "two"))
    for record in Store(study.folder).searched:
        assert record.artifact is not None
        file = study.folder / record.artifact.path
        assert b"second" in file.read_bytes() and pack(file).sha256 == record.artifact.sha256


def test_a_trial_that_is_stopped_at_a_rung_has_no_files(study: Study) -> None:
    stopped = [make_record(leaf, state="stopped", reason="behind") for leaf in LEAVES]
    study.result(rung=as_json(stopped))
    assert study.stored() == []  # it goes on
    study.result(rung=as_json(stopped), done=True)
    assert study.stored() == [leaf.id for leaf in LEAVES]


def test_a_full_disk_ends_the_search_and_nothing_is_recorded(tmp_path: Path) -> None:
    reported = written(tmp_path / "out")
    with small_disk(tmp_path / "study", 8) as folder:
        study = Study(folder)
        ballast = fill(folder)
        study.result(records=reported, delivered=pack(tmp_path / "out"))
        with pytest.raises(FaultError, match=f"{folder} is full"):
            study.recorder.on_step_begin(0, [])
        assert study.stored() == [] and list((folder / "artifacts").iterdir()) == []
        ballast.unlink()
        again = Study(folder)
        again.result(records=reported, delivered=pack(tmp_path / "out"))
        again.recorder.on_step_begin(0, [])
        assert again.stored() == [leaf.id for leaf in LEAVES]


def test_a_folder_that_is_gone_gets_no_records_in_its_place(study: Study, tmp_path: Path) -> None:
    reported = written(tmp_path / "out")
    study.folder.rename(tmp_path / "away")
    study.folder.mkdir()  # as where a disk was mounted
    study.result(records=reported, delivered=pack(tmp_path / "out"))
    assert list(study.folder.iterdir()) == []
    with pytest.raises(FaultError, match="is no longer there"):
        study.recorder.on_step_begin(0, [])


def test_what_a_trial_says_of_its_folder_ends_the_search(study: Study) -> None:
    study.recorder.on_step_begin(0, [])
    study.result(fault="/data is full")
    assert study.stored() == []
    with pytest.raises(FaultError, match=r"^/data is full$"):
        study.recorder.on_step_begin(1, [])


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        ("ray: The actor died because its node has died. Node Id: 1", 0),
        ("Worker was killed: out of memory", 2),
        ("", 2),
    ],
)
def test_a_lost_node_is_no_failure_of_the_recipe(study: Study, tmp_path: Path, error: str, stored: int) -> None:
    study.trial.error_file = str(tmp_path / "error.txt") if error else None
    (tmp_path / "error.txt").write_text(error)
    study.recorder.on_trial_error(0, [], study.trial)
    assert len(study.stored()) == stored
    [(_, reason)] = study.progress.heard
    assert reason == ("lost with its nodes; resume tries it again" if not stored else error or "the worker died")
