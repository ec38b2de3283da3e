"""A pick's parts switched off, through the real pipeline on a tiny model: what is trained, kept and compared."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from search.__main__ import app
from search.ablation import FILE, measure_contributions, measure_study
from search.artifact import MeasureLatency
from search.contributions import Contributions, rivals
from search.digits import make_digits
from search.errors import UnansweredError, UserError
from search.measure.apart import Apart
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.prepare import measured_baseline, prepare
from search.record import Record
from search.report.contributions import contributions_text
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.trial import Task, try_recipe
from search.workplace import Workplace
from spaces.ablation import switched_off
from spaces.recipe import ChannelPrune, Finetune, Int8Static, LogitDistill, Recipe
from tests.fakes import make_record
from tests.hosts import DOUBT, Host
from tests.tiny import SHORT, SIZE, tiny_model

PICK = Recipe(
    image_size=SIZE,
    activation="relu",
    prune=ChannelPrune(ratio=0.5, round_to=4),
    finetune=Finetune(epochs=1, batch=6, lr=0.004),
    distill=LogitDistill(),
    quantize=Int8Static(images=4),
)
OFF = switched_off(PICK, image_size=SIZE)
FREE = {"quantization", "graph rewrites", "all training"}  # leaves of the pick's own training, or none at all
TRAINED = {"activation", "pruning", "training settings", "distillation"}
RIVALS = ["baseline at 32 px", "int8 alone", "the next smaller stock model"]
Trainings = list[Finetune]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    folder = tmp_path_factory.mktemp("inputs")
    torch.save({"model": tiny_model(architecture=SHORT)}, folder / "tiny.pt")
    data = make_digits(folder / "digits", image_size=SIZE, counts={"train": 12, "val": 6, "test": 6})
    content = {"name": "tiny", "model": str(folder / "tiny.pt"), "data": data, "image_size": SIZE, "space": "demo"}
    return StudyConfig.model_validate({**content, "target": {"runs": 10}})


@pytest.fixture(scope="module")
def fresh(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose one trial was the pick; its training is in the cache."""
    folder = tmp_path_factory.mktemp("fresh")
    write_atomically(folder / "study.yaml", config.to_yaml())
    store, place = opened(config, folder)
    store.append(tried(PICK, place))
    return folder


@pytest.fixture(scope="module")
def trainings() -> Generator[Trainings]:
    """Every training that is really done."""
    import search.training

    done: Trainings = []
    stock = search.training.finetune

    def count(model: Any, part: Finetune, *args: Any, **kwargs: Any) -> Any:
        done.append(part)
        return stock(model, part, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search.training, "finetune", count)
        yield done


@pytest.fixture(scope="module")
def cached(
    config: StudyConfig, fresh: Path, trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Contributions, int]:
    """The study after its rows that cost no training, and how many trainings that took."""
    folder, before = copied(fresh, tmp_path_factory.mktemp("cached")), len(trainings)
    return folder, measure(config, folder, train=False), len(trainings) - before


@pytest.fixture(scope="module")
def trained(
    config: StudyConfig,
    cached: tuple[Path, Contributions, int],
    trainings: Trainings,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Contributions, int]:
    """The study after all rows, and how many trainings the others took, which are timed on a made-up host."""
    folder, before = copied(cached[0], tmp_path_factory.mktemp("trained")), len(trainings)
    return folder, measure(config, folder, Host()), len(trainings) - before


def copied(study: Path, folder: Path) -> Path:
    """The view in a copied study is that of the original, so that its cached trainings are found."""
    return Path(shutil.copytree(study, folder / "study", symlinks=True))


def opened(config: StudyConfig, folder: Path) -> tuple[Store, Workplace]:
    store, place = Store(folder), prepare(config, folder, threads=1)
    if store.baseline is None:
        with Apart(place.target) as apart:
            store.append([measured_baseline(place, {place.target.name: timed_by(apart, place)})])
    return store, place


def timed_by(apart: Apart, place: Workplace) -> MeasureLatency:
    return partial(apart.measure, baseline=place.baseline(place.target))


def tried(recipe: Recipe, place: Workplace) -> list[Record]:
    """The records of a trial of ``recipe``, as the search makes them."""
    with Apart(place.target) as apart:
        return try_recipe(Task(leaves=(recipe,)), place, timed_by(apart, place))


def measure(config: StudyConfig, folder: Path, latency: MeasureLatency | None = None, **options: Any) -> Contributions:
    store, place = opened(config, folder)
    with Apart(place.target) as apart:
        return measure_contributions(config, store, place, latency or timed_by(apart, place), **options)


def known_to_the_search(folder: Path, latency: float = 9.0) -> Path:
    """The study with records of its rivals and of what takes no training, all dominated, and with files to time."""
    store = Store(folder)
    recipes = [*rivals(SIZE).values(), *(OFF[part] for part in sorted(FREE))]
    store.append(make_record(recipe, accuracy=0.0, latency=latency, size=9.0) for recipe in recipes)
    for number, recipe in enumerate(recipes):
        file = file_of(folder, recipe.id)
        file.parent.mkdir()
        file.write_bytes(bytes(20_000 + 7_000 * number))
    return folder


def file_of(folder: Path, record_id: str) -> Path:
    artifact = Store(folder).records[record_id].artifact
    assert artifact is not None
    return folder / artifact.path


def times(found: Contributions) -> Counter[tuple[str, str]]:
    """How often each row was timed with each pick."""
    return Counter((timing.pick, timing.row) for timing in found.timings)


def forget(folder: Path, **known: Any) -> None:
    """Replaces parts of what is kept in ``contributions.json``."""
    path = folder / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **known}))


def by_name(found: Contributions) -> dict[str, Any]:
    [pick] = found.picks
    return {row.name: row for row in pick.parts}


def test_what_was_trained_is_not_trained_again_and_the_rest_is_left(cached: tuple[Path, Contributions, int]) -> None:
    folder, found, count = cached
    assert count == 0
    rows = by_name(found)
    assert set(rows) == set(OFF) == FREE | TRAINED
    assert {name for name, row in rows.items() if row.state == "complete"} == FREE
    told = {row.reason for name, row in rows.items() if name in TRAINED}
    assert told == {"not trained: run `python -m search contributions DIR --pick recommended`"}
    assert [(row.name, row.state) for row in found.rivals] == list(
        zip(RIVALS, ("complete", "complete", "missing"), strict=True)
    )
    assert found.rivals[1].values is not None and found.rivals[1].values.size_ratio < 0.5
    assert len(Store(folder).searched) == 1  # no part of the search


def test_the_rest_is_trained_once(trained: tuple[Path, Contributions, int]) -> None:
    folder, found, count = trained
    assert count == len(TRAINED)
    assert {row.state for row in by_name(found).values()} == {"complete"}
    assert found == Contributions.model_validate_json((folder / FILE).read_text())


def test_differences_are_those_of_records_that_are_measured_separately(
    config: StudyConfig, trained: tuple[Path, Contributions, int], trainings: Trainings, tmp_path: Path
) -> None:
    folder, found, _ = trained
    pick, rows = Store(folder).searched[0].measurement, by_name(found)
    place, before = opened(config, tmp_path)[1], len(trainings)
    for name in ("pruning", "quantization"):  # trained for itself, and a leaf of the pick's own training
        [record] = tried(OFF[name], place)
        apart, row = record.measurement, rows[name]
        assert pick and pick.accuracy and apart and apart.accuracy and row.brought
        assert row.brought.accuracy == pytest.approx(pick.accuracy.value - apart.accuracy.value, abs=1e-6)
        assert row.brought.size == pytest.approx(pick.size_bytes / apart.size_bytes, rel=1e-3)
        if name == "quantization":  # the row that was timed here
            assert row.brought.latency == pytest.approx(pick.latency.ratio / apart.latency.ratio, rel=0.5)  # 10 runs
    assert len(trainings) - before == 2  # nothing was cached there


def test_no_row_is_measured_twice(
    config: StudyConfig, trained: tuple[Path, Contributions, int], trainings: Trainings, tmp_path: Path
) -> None:
    folder, before, seen = copied(trained[0], tmp_path), len(trainings), list[str]()
    again = measure(config, folder, on_row=lambda name, record: seen.append(name))
    assert (seen, len(trainings) - before) == ([], 0)
    assert again == trained[1]


def test_a_kill_costs_the_timing_under_way(config: StudyConfig, fresh: Path, tmp_path: Path) -> None:
    folder, seen = known_to_the_search(copied(fresh, tmp_path)), list[str]()

    def killed(name: str, record: Record | None) -> None:
        seen.append(name)
        raise KeyboardInterrupt

    for count in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            measure(config, folder, Host(), train=False, on_row=killed)
        kept = Contributions.model_validate_json((folder / FILE).read_text())
        assert seen == RIVALS[:count] and len(kept.timings) == count
    seen.clear()
    measure(config, folder, Host(), train=False, on_row=lambda name, record: seen.append(name))
    rows = [f"recommended without {part}" for part in OFF]
    free = [f"recommended without {part}" for part in OFF if part in FREE]
    assert seen == [*rows, *RIVALS[:2], *free]  # all once before any is timed twice; the untrained are asked for once


def test_a_part_brings_the_same_on_a_host_that_becomes_slower(config: StudyConfig, fresh: Path, tmp_path: Path) -> None:
    """Files that are timed right after one another differ by what they are, whatever the host did before."""
    folder, host = known_to_the_search(copied(fresh, tmp_path)), Host(slower=1.01)
    found = measure(config, folder, host, train=False)
    assert host.calls == 2 * (2 + 2 * len(FREE))  # so it is a sixth slower in the end
    assert set(times(found).values()) == {2}
    [pick], rows = found.picks, by_name(found)
    own = file_of(folder, pick.record_id).stat().st_size
    for part in FREE:
        gain, truth = rows[part].brought, own / file_of(folder, OFF[part].id).stat().st_size
        assert gain.latency == pytest.approx(truth, rel=0.011)
        assert gain.latency_ci[0] < truth < gain.latency_ci[1]


def test_disturbed_timings_are_made_again(config: StudyConfig, fresh: Path, tmp_path: Path) -> None:
    found = measure(config, known_to_the_search(copied(fresh, tmp_path)), Host(disturbed=1), train=False)
    counts = times(found)
    assert counts.pop(("", found.timings[0].row)) == 3 and set(counts.values()) == {2}
    assert "To be doubted" not in contributions_text(found)


def test_disturbed_timings_are_told_if_none_is_calm(config: StudyConfig, fresh: Path, tmp_path: Path) -> None:
    found = measure(config, known_to_the_search(copied(fresh, tmp_path)), Host(disturbed=10**6), train=False)
    assert config.final is not None and set(times(found).values()) == {config.final.rounds}
    assert contributions_text(found).count(f"- To be doubted: quantization: {DOUBT}.") == 1


def test_a_study_without_a_last_measurement_times_its_rows_once(
    config: StudyConfig, fresh: Path, tmp_path: Path
) -> None:
    without = config.model_copy(update={"final": None})
    found = measure(without, known_to_the_search(copied(fresh, tmp_path)), Host(), train=False)
    assert set(times(found).values()) == {1} and len(found.timings) == 2 + len(FREE)


def test_a_row_stays_where_only_its_pick_cannot_be_timed(config: StudyConfig, fresh: Path, tmp_path: Path) -> None:
    for number, gone in enumerate((False, True)):
        folder = known_to_the_search(copied(fresh, tmp_path / str(number)))
        pick = file_of(folder, PICK.id)
        if gone:
            pick.unlink()
        row = by_name(measure(config, folder, Host(refuses=pick), train=False))["quantization"]
        assert row.state == "complete" and row.brought.latency is None
        assert row.values.latency_ratio == file_of(folder, row.record_id).stat().st_size / 1e5


def test_a_row_that_fails_is_a_row_and_is_tried_again(
    config: StudyConfig, trained: tuple[Path, Contributions, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search.pipeline

    folder = copied(trained[0], tmp_path)
    gone, kept = OFF["graph rewrites"].id, json.loads((folder / FILE).read_text())
    forget(
        folder,
        measured=[record for record in kept["measured"] if record["id"] != gone],
        timings=[timing for timing in kept["timings"] if timing["row"] != gone],
    )

    def broken(*args: Any, **kwargs: Any) -> Path:
        raise RuntimeError("no such operator")

    with monkeypatch.context() as patched:
        patched.setattr(search.pipeline, "write_leaf", broken)
        rows = by_name(measure(config, folder, Host(), train=False))
    row = rows.pop("graph rewrites")
    assert (row.state, row.values, row.reason) == ("failed", None, "RuntimeError: no such operator")
    assert {row.state for row in rows.values()} == {"complete"}
    assert by_name(measure(config, folder, Host(), train=False))["graph rewrites"].state == "complete"


@pytest.mark.parametrize("made", [False, True])
def test_a_bench_that_is_gone_is_no_fault_of_a_row(
    config: StudyConfig, fresh: Path, tmp_path: Path, *, made: bool
) -> None:
    """Neither of one that is made for it, nor of the pick, whose file is timed again."""
    store, place = opened(config, copied(fresh, tmp_path))
    if not made:
        store.append(make_record(recipe, accuracy=0.0, size=9.0, latency=9.0) for recipe in rivals(SIZE).values())

    def gone(file: Path, effort: Effort) -> Latency:
        raise UnansweredError("bench:onnxruntime-cpu gave no answer")

    with pytest.raises(UnansweredError):
        measure_contributions(config, store, place, gone, train=False)
    path = place.folder / FILE
    kept = Contributions.model_validate_json(path.read_text(encoding="utf-8")).measured if path.is_file() else ()
    assert {record.state for record in kept} <= {"complete"}


def test_a_record_of_the_search_whose_file_is_gone_is_taken_as_it_is(
    config: StudyConfig, fresh: Path, tmp_path: Path
) -> None:
    folder = known_to_the_search(copied(fresh, tmp_path))
    file_of(folder, OFF["quantization"].id).unlink()
    rows = by_name(measure(config, folder, Host(), train=False))
    assert rows["quantization"].values.latency_ratio == 9.0 and rows["quantization"].brought.latency is None
    assert rows["graph rewrites"].values.latency_ratio < 9.0


def test_the_pick_is_timed_again_with_its_rows_and_keeps_its_accuracy(
    config: StudyConfig, fresh: Path, tmp_path: Path
) -> None:
    """A latency that was measured in another way at another time would be set against those of now."""
    folder = copied(fresh, tmp_path)
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    lines[-1]["measurement"]["latency"] |= {"ratio": 50.0, "ratio_low": 49.0, "ratio_high": 51.0}
    lines[-1]["measurement"]["accuracy"]["map50_95"] = 0.75
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [pick] = measure(config, known_to_the_search(folder, latency=99.0), Host(), train=False).picks
    assert pick.values.accuracy == 0.75
    assert pick.values.latency_ratio == pytest.approx(file_of(folder, PICK.id).stat().st_size / 1e5)
    assert Store(folder).records[PICK.id].measurement.latency.ratio == 50.0  # pyright: ignore[reportOptionalMemberAccess]


def test_a_smaller_model_is_a_rival_by_its_own_weights(
    trained: tuple[Path, Contributions, int], tmp_path: Path
) -> None:
    folder, small = copied(trained[0], tmp_path), tmp_path / "smaller.pt"
    torch.save({"model": tiny_model(width=0.0625, architecture=SHORT)}, small)
    found = measure_study(folder, ["fastest"], train=False, smaller=small, on_row=lambda name, record: None)
    row = found.rivals[-1]
    assert row.name.startswith("stock-smaller-") and row.values is not None and row.values.size_ratio < 0.6
    kept = Contributions.model_validate_json((folder / FILE).read_text())
    assert kept.rivals[-1] == row
    report = (folder / "report.md").read_text()
    assert "## What each part brings" in report and f"| {row.name} |" in report and "| pruning |" in report


def test_the_command_prints_the_tables_of_the_picks_that_were_asked_for(
    trained: tuple[Path, Contributions, int], tmp_path: Path
) -> None:
    folder = copied(trained[0], tmp_path)
    done = CliRunner().invoke(app, ["contributions", str(folder), "--pick", "knee", "--json"])
    printed, kept = json.loads(done.stdout), json.loads((folder / FILE).read_text())
    assert "measured" not in printed and "timings" not in printed
    assert [pick["record_id"] for pick in printed["picks"]] == [PICK.id]
    assert Contributions.model_validate({**kept, **printed}) == trained[1]


def test_what_does_not_fit_is_refused(trained: tuple[Path, Contributions, int], tmp_path: Path) -> None:
    other = tiny_model(architecture={**SHORT, "nc": 1})
    other.names = {0: "cat"}
    torch.save({"model": other}, tmp_path / "cats.pt")
    with pytest.raises(UserError, match="knows 1 classes"):
        measure_study(trained[0], ["fastest"], train=False, smaller=tmp_path / "cats.pt", on_row=lambda *row: None)
    with pytest.raises(UserError, match="--pick best: allowed are recommended, knee"):
        measure_study(trained[0], ["best"], train=False, on_row=lambda *row: None)
