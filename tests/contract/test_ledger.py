"""Optuna's storage says what the records say, in a file and in a real PostgreSQL: nothing lost, doubled or invented."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.driver import resume_study  # noqa: F401 - what a driver imports is imported
from search.engine.samplers import OPTUNA_STATES
from search.errors import UserError
from search.front import non_dominated
from search.record import BASELINE, losses
from search.results import feasible
from search.storage.database import database_url, open_storage
from search.storage.hold import held
from search.storage.ledger import Ledger
from search.store import Store
from search.study import StudyConfig, load_space
from tests.postgres import PASSWORD, Postgres, binaries
from tests.writer import append, config_of, ended, main, start, wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    if (programs := binaries()) is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["journal", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "postgres":
        monkeypatch.setenv("OPTUNA_STORAGE", request.getfixturevalue("postgres").url)
    return request.param


def ledger_of(folder: Path) -> optuna.Study:
    """The study as another program finds it, by what it knows: the storage, and the name of the study."""
    storage = open_storage(database_url(None), folder)
    first = (folder / "records.jsonl").read_text().splitlines()[0]
    digits = hashlib.sha256(first.encode()).hexdigest()[:8]
    name = f"cats-{digits}" if "OPTUNA_STORAGE" in os.environ else "cats"
    return optuna.load_study(study_name=name, storage=storage)


def told(folder: Path) -> list[str]:
    try:
        return [trial.user_attrs["record"] for trial in ledger_of(folder).trials]
    except KeyError:  # there is no study yet
        return []


def recorded(folder: Path) -> list[str]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [name for name in (json.loads(line)["id"] for line in lines) if name != BASELINE]


def test_every_record_is_a_trial_with_its_parameters_values_and_state(kind: str, tmp_path: Path) -> None:
    main(str(tmp_path), "", "cats", 14, 0)
    study, records = ledger_of(tmp_path), Store(tmp_path).searched
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "latency"]
    assert study.user_attrs["baseline"] == {"accuracy": 0.6, "latency": 1.0}
    assert len(study.trials) == len(records) == 14
    for trial, record in zip(study.trials, records, strict=True):
        prune: Any = record.recipe.prune
        assert trial.params == {"prune.kind": "channels", "prune.channels.ratio": prune.ratio}
        assert trial.state == OPTUNA_STATES.get(record.state, TrialState.COMPLETE)
        assert trial.values == (list(record.values(("accuracy", "latency")) or ()) or None)
        assert trial.user_attrs["record"] == record.id and trial.user_attrs["state"] == record.state
        assert trial.user_attrs.get("reason", "") == record.reason
        assert trial.user_attrs["recipe"] == record.recipe.to_yaml()
        assert trial.user_attrs["artifact"] == f"artifacts/{record.id}/model.onnx"
        assert trial.datetime_complete is not None and record.at is not None
        assert trial.datetime_complete.timestamp() == pytest.approx(record.at, abs=1e-3)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


@pytest.mark.parametrize("limits", [{}, {"max_latency_ratio": 0.6, "max_accuracy_drop": 0.15}])
def test_optuna_sees_the_front_that_the_records_have(kind: str, tmp_path: Path, limits: dict[str, float]) -> None:
    config = StudyConfig.model_validate({**config_of(tmp_path, "cats").model_dump(), "constraints": limits})
    main(str(tmp_path), "", "cats", 24, 0)
    with held(tmp_path, config):
        pass
    store = Store(tmp_path)
    if limits:  # as the study was begun without, from the beginning
        (tmp_path / "optuna.log").unlink(missing_ok=True)
        records = (tmp_path / "records.jsonl").read_text()
        (tmp_path / "records.jsonl").write_text(records.replace('"at": ', '"at":  ', 1))
        with held(tmp_path, config):
            pass
    kept = [record for record in store.searched if feasible(record, store.baseline, config)]
    points = np.array([losses(record.values(config.objectives) or (), config.objectives) for record in kept])
    front = {record.id for record, on in zip(kept, non_dominated(points), strict=True) if on}
    assert 1 < len(front) < len(kept)
    assert {trial.user_attrs["record"] for trial in ledger_of(tmp_path).best_trials} == front


def test_a_killed_driver_adds_what_is_missing_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    for number in (3, 9):
        driver = start(tmp_path, 18, pause=0.02)
        wait_for(driver, number)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert recorded(tmp_path)[: len(told(tmp_path))] == told(tmp_path)
    if kind == "journal":  # and one that was killed in the middle of a line
        with (tmp_path / "optuna.log").open("ab") as file:
            file.write(b'{"op_code":4,"worker')
    main(str(tmp_path), "", "cats", 18, 0)
    assert told(tmp_path) == recorded(tmp_path) and len(recorded(tmp_path)) == 18
    before = ledger_of(tmp_path).trials
    main(str(tmp_path), "", "cats", 18, 0)
    assert ledger_of(tmp_path).trials == before
    assert not any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in before)


def test_two_drivers_of_different_studies_at_once(kind: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    drivers = [start(folder, 18, pause=0.02) for folder in folders]  # two studies of one name
    for driver in drivers:
        ended(driver)
    for folder in folders:
        assert told(folder) == recorded(folder) and len(recorded(folder)) == 18


def test_a_database_that_is_away_stops_nothing_and_has_everything_later(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", postgres.url)
    driver = start(tmp_path, 30, pause=0.1)
    wait_for(driver, 3)
    postgres.stop()
    try:
        said = ended(driver)
    finally:
        postgres.start()
    assert said.count("does not answer") == 1 and said.count("Optuna's storage lacks trials") == 1
    assert len(recorded(tmp_path)) == 30 > len(told(tmp_path))
    with held(tmp_path, config_of(tmp_path, "cats")):
        pass
    assert told(tmp_path) == recorded(tmp_path)
    assert PASSWORD not in said
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:correct-horse@host/db", "must not hold a password; put the whole URL into .* OPTUNA_STORAGE"),
        ("postgresql://host/db?password=correct-horse", "must not hold password"),
    ],
)
def test_a_password_in_a_study_file_is_refused_and_not_repeated(tmp_path: Path, url: str, message: str) -> None:
    from search.study import parse_study

    content = {**config_of(tmp_path, "cats").model_dump(mode="json"), "optuna_storage": url}
    with pytest.raises(UserError, match=message) as found:
        parse_study(content, where="study.yaml")
    assert PASSWORD not in str(found.value)


def test_the_environment_wins_and_plain_urls_get_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert database_url(None) is None
    for plain in ("postgres://me@host/db", "postgresql://me@host/db", "postgresql+psycopg://me@host/db"):
        assert str(database_url(plain)) == "postgresql+psycopg://me@host/db"
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/o.db")
    assert str(database_url("postgresql://me@host/db")).startswith("sqlite:")
    for wrong in ("nothing", "nothing://me:correct-horse@host/db"):
        monkeypatch.setenv("OPTUNA_STORAGE", wrong)
        with pytest.raises(UserError, match="OPTUNA_STORAGE is no URL of a database") as found:
            database_url(None)
        assert PASSWORD not in str(found.value)


def test_sqlite_on_a_local_disk_is_a_ledger_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/o.db")
    main(str(tmp_path / "study"), "", "cats", 10, 0)
    assert told(tmp_path / "study") == recorded(tmp_path / "study")


def test_a_recipe_that_is_not_in_the_space_is_told_without_parameters(tmp_path: Path) -> None:
    config = config_of(tmp_path, "cats")
    (tmp_path / "space.yaml").write_text("image_size: 64\nprune: {kind: channels, ratio: {low: 0.9, high: 0.95}}\n")
    assert load_space(config.space, image_size=64)
    main_store = Store(tmp_path)
    from tests.fakes import make_baseline

    main_store.append([make_baseline()])
    append(main_store, tmp_path, 1)
    ledger = Ledger(config, tmp_path)
    assert ledger.due()
    ledger.work()
    assert not ledger.due()
    [trial] = ledger_of(tmp_path).trials
    assert trial.params == {} and trial.state == TrialState.COMPLETE
