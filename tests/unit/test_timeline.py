"""What happened when: the hypervolume over time against one worked by hand, overheads, and two studies side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import UserError
from search.record import Record
from search.report.compare import compare, plot, table
from search.store import Records, Started, Store, write_atomically
from search.study import StudyConfig
from search.timeline import growth, overheads
from spaces.recipe import Fp32, Int8Static, Recipe
from tests.fakes import make_baseline, make_record


def config(**changes: object) -> StudyConfig:
    content = {"name": "test", "model": "a.pt", "data": "data.yaml", "image_size": 64, **changes}
    return StudyConfig.model_validate(content)


def trial(image_size: int, at: float, *, accuracy: float, latency: float, seconds: float = 0.0) -> list[Record]:
    """Both leaves of a trunk, stored together; int8 is twice as fast and as accurate."""
    recipes = [Recipe(image_size=image_size, quantize=quantize) for quantize in (Fp32(), Int8Static())]
    return [
        make_record(recipe, accuracy=accuracy, latency=latency / (1 + number)).model_copy(
            update={"at": at, "seconds": {"train": seconds * 0.75, "measure": seconds * 0.25}}
        )
        for number, recipe in enumerate(recipes)
    ]


def started(image_size: int, at: float) -> Started:
    return Started(recipe=Recipe(image_size=image_size), at=at)


def test_growth_is_the_hypervolume_at_the_end_of_each_trial() -> None:
    store = Records([make_baseline()], [started(64, 1000.0), started(32, 1030.0)])
    store.append(trial(64, 1060.0, accuracy=0.5, latency=0.8))
    store.append(trial(32, 1090.0, accuracy=0.4, latency=0.2))
    moments = growth(config(), store)
    assert [moment.minutes for moment in moments] == pytest.approx([1.0, 1.5])
    assert [moment.trials for moment in moments] == [1, 2]
    # int8 is at latency .4, then .1: the boxes up to accuracy 0 and latency 1, the second less what the first covers.
    assert [moment.hypervolume for moment in moments] == pytest.approx([0.5 * 0.6, 0.5 * 0.6 + 0.4 * 0.3])
    limited = growth(config(constraints={"max_accuracy_drop": 0.15}), store)
    assert [moment.hypervolume for moment in limited] == pytest.approx([0.5 * 0.6] * 2)


def test_an_overhead_is_what_no_step_took_since_the_last_start() -> None:
    store = Records([make_baseline()], [started(64, 900.0), started(64, 1000.0), started(32, 1001.0)])
    store.append(trial(64, 1012.5, accuracy=0.5, latency=0.8, seconds=12.0))
    store.append(trial(32, 1031.25, accuracy=0.5, latency=0.8, seconds=30.0))
    assert overheads(store) == pytest.approx([0.5, 0.25])


def test_records_without_times_have_no_timeline() -> None:
    store = Records([make_baseline()], [Started(recipe=Recipe(image_size=64))])
    store.append([make_record(Recipe(image_size=64)).model_copy(update={"at": None})])
    assert growth(config(), store) == []
    assert overheads(store) == []


def study(folder: Path, latency: float, **changes: object) -> Path:
    folder.mkdir()
    write_atomically(folder / "study.yaml", config(**changes).to_yaml())
    store = Store(folder)
    store.append([make_baseline()])
    store.start(Recipe(image_size=64))
    now = store.started[0].at
    assert now is not None
    store.append(trial(64, now + 60, accuracy=0.5, latency=latency))
    store.append(trial(32, now + 600, accuracy=0.6, latency=latency))
    return folder


def test_studies_are_compared_at_the_same_times(tmp_path: Path) -> None:
    folders = [study(tmp_path / "fast", 0.4), study(tmp_path / "slow", 0.8)]
    found = compare(folders, minutes=6.0)
    assert [[state["hypervolume"] for state in own["at"]] for own in found["studies"]] == [
        pytest.approx([0.5 * 0.8] * 6),
        pytest.approx([0.5 * 0.6] * 6),
    ]
    assert compare(folders)["minutes"] == pytest.approx(10.0)
    assert [own["at"][-1]["trials"] for own in compare(folders)["studies"]] == [2, 2]
    assert "0.4000 (1 trials, 0 epochs)" in table(found)
    plot(found, tmp_path / "growth.svg")
    assert "<svg" in (tmp_path / "growth.svg").read_text(encoding="utf-8")


def test_studies_of_other_things_are_not_compared(tmp_path: Path) -> None:
    folders = [study(tmp_path / "a", 0.4), study(tmp_path / "b", 0.4, model="other.pt")]
    with pytest.raises(UserError, match="differ in model"):
        compare(folders)
