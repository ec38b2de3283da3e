"""The same files timed quietly and under load: what is compared, and which files are taken."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from search.errors import UserError
from search.measure import trust
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.measure.trust import Pass, Passes, files_of, measure_trust
from search.record import Artifact
from search.store import Store
from search.study import StudyConfig
from search.target import Target
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record
from tests.loops import save_loop


def test_the_order_of_clearly_different_files_holds_under_load(tmp_path: Path) -> None:
    files = []
    for trips in (100, 800, 300):
        (tmp_path / str(trips)).mkdir()
        files.append(save_loop(tmp_path / str(trips) / "model.onnx", trips))
    passes: list[Pass] = []
    found = measure_trust(files, files[1], Target(), Effort(runs=20), rounds=1, busy=1, on_pass=passes.append)
    assert [each.file for each in passes] == found.files * 3
    assert [each.busy for each in passes] == [0] * 6 + [1] * 3
    assert found.files == ["100", "800", "300"]
    assert found.kendall_tau == 1
    assert found.quiet[0] == pytest.approx(found.quiet[1], rel=0.3)
    assert found.loaded == pytest.approx(found.quiet[0], rel=0.3)
    first, second = found.quiet
    differences = [max(a, b) / min(a, b) - 1 for a, b in zip(first, second, strict=True)]
    assert found.repeat_difference == pytest.approx(max(differences))
    assert (found.busy_processes, len(found.loaded)) == (1, 3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a bench was asked for; its third and fourth answers are disturbed: the second pass over both files."""
    names: list[str] = []

    class Bench:
        def __init__(self, target: Target) -> None: ...

        def __enter__(self) -> Bench:
            return self

        def __exit__(self, *error: object) -> None:
            names.append("closed")

        def measure(self, file: Path, effort: Effort, *, baseline: Path) -> Latency:
            names.append(file.parent.name)
            bad = len(names) in (3, 4)
            return replace(timed(0.5 if bad else {"a": 0.2, "b": 0.4}[names[-1]]), disturbed=bad)

    monkeypatch.setattr(trust, "Apart", Bench)
    return names


TWO = [Path("a/model.onnx"), Path("b/model.onnx")]


def measured(**more: Any) -> trust.Trust:
    return measure_trust(TWO, Path("base"), Target(), Effort(), busy=1, **more)


def test_a_measurement_goes_over_all_files_twice_and_what_is_disturbed_is_timed_again(asked: list[str]) -> None:
    found = measured()
    assert asked == [*"ab" * 7, "closed"]
    assert (found.quiet, found.loaded) == ([[0.2, 0.4]] * 2, [0.2, 0.4])


def test_a_run_that_was_cut_off_goes_on_from_its_passes(asked: list[str], tmp_path: Path) -> None:
    log = Passes(tmp_path / "passes.jsonl", TWO)

    def cut_off(each: Pass) -> None:
        log.add(each)
        if len(asked) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(on_pass=cut_off)
    assert asked == [*"abababab", "a", "closed"]
    again = Passes(tmp_path / "passes.jsonl", TWO)
    assert [each.file for each in again.kept] == [*"ababababa"]
    asked.clear()
    found = measured(kept=again.kept)
    assert asked == [*"bababab", "closed"]  # the rest of the second, and the third with two disturbed passes
    assert (found.quiet, found.loaded) == ([[0.2, 0.4]] * 2, [0.2, 0.4])
    with pytest.raises(UserError, match="has passes over b, which is not timed now; name another file"):
        Passes(tmp_path / "passes.jsonl", TWO[:1])


def test_busy_processes_end_with_whoever_began_them() -> None:
    code = "from search.measure import trust\nwith trust._busy(1) as [other]:\n print(other.pid, flush=True)\n input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as measuring:
        assert measuring.stdout is not None
        busy = psutil.Process(int(measuring.stdout.readline()))
        assert busy.is_running()
        measuring.kill()
    busy.wait(30)


def timed(ratio: float) -> Latency:
    made = make_record(Recipe(image_size=64), latency=ratio).measurement
    assert made is not None
    return made.latency


@pytest.fixture
def study(tmp_path: Path) -> Path:
    config = StudyConfig(name="toy", model="a.pt", data=Path("data.yaml"), image_size=64)
    (tmp_path / "study.yaml").write_text(config.to_yaml(), encoding="utf-8")
    baseline = make_baseline().model_copy(
        update={"artifact": Artifact(path="baseline/model.onnx", sha256="0" * 64, size_bytes=1)}
    )
    ratios = [0.3, 0.7, 0.1, 0.5, 0.6]
    recipes = [Recipe(image_size=64, prune=ChannelPrune(ratio=ratio)) for ratio in ratios]
    store = Store(tmp_path)
    store.append([baseline])
    for recipe, ratio in zip(recipes, ratios, strict=True):
        record = make_record(recipe, latency=ratio)
        store.append([record])
        assert record.artifact is not None
        if ratio != 0.5:  # a file that is not there
            (tmp_path / record.artifact.path).parent.mkdir(parents=True)
            (tmp_path / record.artifact.path).write_bytes(b"")
    return tmp_path


def test_files_are_taken_evenly_over_their_latencies(study: Path) -> None:
    store = Store(study)
    latency = {r.artifact.path: r.measurement.latency.ratio for r in store.searched if r.artifact and r.measurement}
    files, baseline, config = files_of(study, 3)
    assert [latency[str(file.relative_to(study))] for file in files] == [0.1, 0.6, 0.7]
    assert baseline == study / "baseline" / "model.onnx"
    assert config.target == Target()
    assert len(files_of(study, 10)[0]) == 4
    files[0].unlink()
    files[0].mkdir()  # as ncnn's are
    assert files_of(study, 3)[0] == files


def test_a_study_without_files_is_refused(study: Path) -> None:
    for file in study.glob("artifacts/*/*"):
        file.unlink()
    with pytest.raises(UserError, match="has not two model files to compare; run the study on this machine"):
        files_of(study, 3)
