"""Event files of a study, read by TensorBoard itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.live.tensorboard import write_events
from search.store import Store, write_atomically
from spaces.recipe import Fp32
from tests.fakes import make_baseline, make_record
from tests.studies import pruned, study

READER = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed: make setup"
)
TRUNK = pruned(0.5)
CURVE = ((1, 0.2), (3, 0.45))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    int8 = make_record(TRUNK, accuracy=0.44, latency=0.3, size=0.1).model_copy(update={"curve": CURVE, "at": 1000.0})
    fp32 = make_record(TRUNK.model_copy(update={"quantize": Fp32()}), accuracy=0.45, latency=0.6)
    screened = make_record(pruned(0.9), accuracy=None, state="screened", reason="too slow")
    failed = make_record(pruned(0.8), state="failed", reason="it broke")
    found.append([make_baseline(), int8, fp32.model_copy(update={"curve": CURVE, "at": 1000.0}), screened, failed])
    return found


def read(place: Path) -> Any:
    found = READER.EventAccumulator(str(place))
    found.Reload()
    return found


def hparams(place: Path) -> dict[str, Any]:
    plugin: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    content = read(place).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in values.items()}


def test_a_trial_has_its_curve_and_its_leaves_their_results(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "tensorboard"
    assert write_events(store, out) == 3
    place = out / TRUNK.trunk_id
    curve = read(place).Scalars("accuracy")
    assert [(event.step, pytest.approx(event.value)) for event in curve] == list(CURVE)
    assert {event.wall_time for event in curve} == {1000.0}
    leaves = {path.name.partition("-")[0]: path for path in place.iterdir() if path.is_dir()}
    assert set(leaves) == {"int8", "fp32"}
    for kind, accuracy, latency in (("int8", 0.44, 0.3), ("fp32", 0.45, 0.6)):
        found = read(leaves[kind])
        told = {name: found.Scalars(name)[0] for name in found.Tags()["scalars"]}
        assert told["final/accuracy"].value == pytest.approx(accuracy)
        assert told["final/latency_ratio"].value == pytest.approx(latency)
        assert told["final/latency_ms"].value == pytest.approx(10 * latency)
        assert {event.step for event in told.values()} == {3}


def test_a_recipe_is_its_parameters(store: Store, tmp_path: Path) -> None:
    write_events(store, tmp_path / "out")
    [place] = (tmp_path / "out" / TRUNK.trunk_id).glob("int8-*")
    known = hparams(place)
    assert (known["prune.ratio"], known["finetune.epochs"], known["quantize.kind"]) == (0.5, 3.0, "int8")
    assert (known["state"], known["image_size"]) == ("complete", 64.0)


def test_what_was_not_trained_has_no_accuracy(store: Store, tmp_path: Path) -> None:
    write_events(store, tmp_path / "out")
    [place] = (tmp_path / "out" / pruned(0.9).trunk_id).glob("int8-*")
    assert "final/accuracy" not in read(place).Tags()["scalars"]
    assert "final/latency_ratio" in read(place).Tags()["scalars"]
    [place] = (tmp_path / "out" / pruned(0.8).trunk_id).glob("int8-*")
    assert read(place).Tags()["scalars"] == []
    assert hparams(place)["state"] == "failed"


def test_what_is_written_stays_and_what_is_new_is_added(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_events(store, out)
    before = {path: path.read_bytes() for path in out.rglob("events*")}
    (out / TRUNK.trunk_id / ".done").unlink()  # cut off in the middle
    store.append([make_record(pruned(0.2))])
    assert write_events(store, out) == 2
    after = {path: path.read_bytes() for path in out.rglob("events*")}
    again = {path for path in before if TRUNK.trunk_id in path.parts}
    assert {path: after[path] for path in set(before) - again} == {p: c for p, c in before.items() if p not in again}
    assert len([path for path in after if TRUNK.trunk_id in path.parts]) == len(again)
    assert write_events(store, out) == 0


def test_the_command_says_what_to_type_next(store: Store, tmp_path: Path) -> None:
    assert store.baseline is not None
    write_atomically(tmp_path / "study.yaml", study().to_yaml())
    done = CliRunner().invoke(app, ["tensorboard", str(tmp_path)])
    assert (done.exit_code, done.output.split(";")[0]) == (0, "3 trials added")
    assert f"tensorboard --logdir {tmp_path / 'tensorboard'}" in done.output.replace("\n", "")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3
