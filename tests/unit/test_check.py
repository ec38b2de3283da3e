"""A new study against a champion: margins, intervals, and studies that cannot be compared; files really timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from search.check import Margins, check
from search.errors import UserError
from search.measure.apart import Apart
from search.measure.latency import Latency
from search.record import Artifact
from search.store import Store
from search.study import StudyConfig
from search.target import Target
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record
from tests.loops import save_loop

BASE = make_record(Recipe(image_size=64), latency=1.0).measurement


def study(folder: Path, *members: tuple[float, float, float], data: str = "same", trips: int = 100) -> Path:
    """A study whose front has members of these accuracies, latency ratios and sizes; files loop ``trips`` times."""
    folder.mkdir()
    config = StudyConfig(name="s", model="a.pt", data=Path("data.yaml"), image_size=64, target=Target(runs=20))
    (folder / "study.yaml").write_text(config.to_yaml(), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps({"digest": data}), encoding="utf-8")
    store = Store(folder)
    base = make_baseline()
    store.append([base.model_copy(update={"artifact": Artifact(path="b.onnx", sha256="0" * 64, size_bytes=1)})])
    for number, (accuracy, latency, size) in enumerate(members):
        recipe = Recipe(image_size=64, prune=ChannelPrune(ratio=0.1 + 0.1 * number))
        record = make_record(recipe, accuracy=accuracy, latency=latency, size=size)
        assert record.artifact
        store.append([record])
        file = folder / record.artifact.path
        file.parent.mkdir(parents=True)
        save_loop(file, trips * (number + 1))
    return folder


def timed(ratio: float, low: float, high: float) -> Latency:
    assert BASE
    return replace(BASE.latency, ratio=ratio, ratio_low=low, ratio_high=high)


def test_the_interval_has_to_keep_the_margin(tmp_path: Path) -> None:
    new, old = study(tmp_path / "new", (0.6, 0.5, 0.2)), study(tmp_path / "old", (0.6, 0.6, 0.2))
    margins = Margins(latency=0.1)
    kept = check(new, old, "recommended", margins, lambda a, b: timed(0.85, 0.80, 0.90))
    assert kept.beaten
    assert kept.winner is not None
    assert kept.latency_ratio_ci == (0.80, 0.90)
    missed = check(new, old, "recommended", margins, lambda a, b: timed(0.85, 0.80, 0.91))
    assert not missed.beaten
    assert "latency ×0.850 (0.800-0.910) of the champion's, and ×0.900 was asked for" in missed.reasons[0]


def test_the_fastest_that_keeps_accuracy_and_size_wins_and_others_are_not_timed(tmp_path: Path) -> None:
    members = ((0.55, 0.2, 0.1), (0.59, 0.4, 0.3), (0.60, 0.5, 0.2), (0.61, 0.6, 0.2))
    new, old = study(tmp_path / "new", *members), study(tmp_path / "old", (0.59, 0.9, 0.25))
    seen: list[Path] = []

    def measure(file: Path, champion: Path) -> Latency:
        seen.append(file)
        return timed(0.5, 0.49, 0.51)

    verdict = check(new, old, "recommended", Margins(), measure)
    assert verdict.winner is not None
    assert verdict.winner["accuracy"] == 0.60
    assert [file.parent.name for file in seen] == [verdict.winner["record_id"]]
    assert ["accuracy 0.5500, -0.0400, and +0.0000" in r for r in verdict.reasons] == [True, False, False]
    assert "size ×1.200 of the champion's" in verdict.reasons[1]
    assert check(new, old, "recommended", Margins(accuracy=-0.05), measure).winner["accuracy"] == 0.55  # pyright: ignore[reportOptionalSubscript]


def test_files_are_really_timed_side_by_side(tmp_path: Path) -> None:
    new = study(tmp_path / "new", (0.6, 0.5, 0.2), trips=1000)
    old = study(tmp_path / "old", (0.6, 0.5, 0.2), trips=4000)
    with Apart(Target(runs=30)) as apart:
        better = check(new, old, "fastest", Margins(latency=0.5), lambda a, b: apart.measure(a, baseline=b))
        worse = check(old, new, "fastest", Margins(), lambda a, b: apart.measure(a, baseline=b))
    assert better.beaten
    assert better.latency_ratio == pytest.approx(0.25, rel=0.3)
    assert not worse.beaten


def test_studies_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    old = study(tmp_path / "old", (0.6, 0.5, 0.2))
    other = study(tmp_path / "other", (0.6, 0.5, 0.2), data="another")
    with pytest.raises(UserError, match=r"not of the same data \(another, same\)"):
        check(other, old, "fastest", Margins(), lambda a, b: timed(0.5, 0.5, 0.5))
    (other / "data.json").unlink()
    with pytest.raises(UserError, match="not of the same data"):
        check(other, old, "fastest", Margins(), lambda a, b: timed(0.5, 0.5, 0.5))
    new = study(tmp_path / "new", (0.6, 0.5, 0.2))
    next(new.rglob("model.onnx")).unlink()
    with pytest.raises(UserError, match=r"there is no .*model\.onnx; both studies need their files"):
        check(new, old, "fastest", Margins(), lambda a, b: timed(0.5, 0.5, 0.5))
