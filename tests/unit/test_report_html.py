"""What the HTML report holds, against hand counts; what the browser makes of it is in tests/integration."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from search.contributions import contributions
from search.final import Final, Finals
from search.record import Record
from search.report.html.data import Recipes, report_data
from search.report.html.importance import dimensions, importance
from search.report.html.page import embedded_json, front_csv, page, write_all
from search.report.html.pictures import pictures
from search.report.savings import Savings, savings
from search.results import found_on, summary
from search.store import Records, Store, write_atomically
from search.study import StudyConfig
from search.timeline import growth
from spaces.recipe import ChannelPrune, Finetune, Fp32, Int8Static, Recipe
from tests.fakes import make_baseline, make_record

CONFIG = StudyConfig.model_validate({"name": "t", "model": "a.pt", "data": "data.yaml", "image_size": 64,
                                     "constraints": {"max_accuracy_drop": 0.1}})  # fmt: skip


def recipe(ratio: float = 0.5, *, epochs: int = 10, int8: bool = False) -> Recipe:
    quantize = Int8Static() if int8 else Fp32()
    return Recipe(image_size=64, prune=ChannelPrune(ratio=ratio), finetune=Finetune(epochs=epochs), quantize=quantize)


def spent(record: Record, seconds: float, curve: tuple[tuple[int, float], ...] = ()) -> Record:
    return record.model_copy(update={"seconds": {"train": seconds}, "curve": curve})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two trunks that finished, one stopped after 4 of 20 epochs, one screened, and a failed one."""
    found = Store(tmp_path)
    write_atomically(tmp_path / "study.yaml", CONFIG.to_yaml())
    found.append([make_baseline()])
    found.start(recipe(0.25))
    whole = ((5, 0.4), (10, 0.59))
    late, few = recipe(0.6, epochs=20), ((4, 0.1),)
    found.append(
        [
            spent(make_record(recipe(0.25), accuracy=0.59, latency=0.6, size=0.5), 50.0, whole),
            spent(make_record(recipe(0.25, int8=True), accuracy=0.58, latency=0.3, size=0.2), 50.0, whole),
            spent(make_record(recipe(0.5), accuracy=0.3, latency=0.2, size=0.1), 30.0),
            make_record(recipe(0.5, int8=True), accuracy=None, state="screened", reason="too slow"),
            spent(make_record(late, accuracy=None, state="stopped", reason="behind"), 16.0, few),
            make_record(recipe(0.7, epochs=30), accuracy=None, state="screened", reason="</script><b>&"),
            make_record(recipe(0.8), accuracy=None, state="failed", reason="a crash"),
        ]
    )
    return found


def data_of(store: Store, folder: Path) -> dict[str, Any]:
    records = Finals(folder).applied(store)
    return report_data(CONFIG, records, summary(CONFIG, store, folder), growth(CONFIG, store), None)


def test_every_record_is_there_once_with_its_values(store: Store, tmp_path: Path) -> None:
    columns = data_of(store, tmp_path)["records"]
    assert {len(values) for values in columns.values()} == {7}
    assert columns["id"] == [record.id for record in store.searched]
    assert columns["state"] == ["complete"] * 3 + ["screened", "stopped", "screened", "failed"]
    assert columns["accuracy"] == [0.59, 0.58, 0.3, None, None, None, None]
    assert columns["latency"] == [0.6, 0.3, 0.2, 0.5, 0.5, 0.5, None]
    assert columns["mb"] == [5.0, 2.0, 1.0, 2.5, 2.5, 2.5, None]
    assert columns["within"] == [True, True, False, False, False, False, False]  # 0.3 is a drop of 0.3
    assert columns["epochs"] == [10, 10, 10, 10, 20, 30, 10]
    assert columns["curve"][4] == [[4, 0.1]]
    began = store.started[0].at
    ended = store.searched[0].at
    assert began and ended
    assert columns["minutes"][0] == pytest.approx((ended - began) / 60, abs=1e-3)


def test_the_page_knows_how_many_pictures_its_milliseconds_are_of(store: Store, tmp_path: Path) -> None:
    assert data_of(store, tmp_path)["batch"] == 1
    assert store.baseline
    measured = store.baseline.measurement
    assert measured
    four = measured.model_copy(update={"latency": replace(measured.latency, batch=4)})
    baseline = store.baseline.model_copy(update={"measurement": four})
    records = Records([baseline, *store.searched])
    result = {**summary(CONFIG, store, tmp_path), **found_on(CONFIG, records)}
    assert report_data(CONFIG, records, result, [], None)["batch"] == 4


def test_the_front_names_rows_and_picks(store: Store, tmp_path: Path) -> None:
    data = data_of(store, tmp_path)
    assert [member["row"] for member in data["front"]] == [0, 1]
    picks = {name: member["row"] for member in data["front"] for name in member["picks"]}
    assert {name: row for name, row in picks.items() if name != "knee"} == {
        "most-accurate": 0,
        "recommended": 0,  # the fastest within a point of the baseline
        "fastest": 1,
        "smallest": 1,
    }
    assert data["hypervolume"]["final"] == pytest.approx(
        0.58 * 0.7 + 0.01 * 0.4
    )  # latency alone is the other objective


def test_what_was_measured_again_is_what_is_shown(store: Store, tmp_path: Path) -> None:
    record = store.searched[1]
    assert record.measurement
    again = replace(record.measurement.latency, ratio=0.35, ratio_low=0.34, ratio_high=0.36)
    Finals(tmp_path).append(Final(record_id=record.id, latency=again))
    columns = data_of(store, tmp_path)["records"]
    assert (columns["latency"][1], columns["latency_ci"][1]) == (0.35, [0.34, 0.36])
    assert columns["minutes"][1] is not None


def test_recipes_come_back_from_the_places_of_their_parts(store: Store, tmp_path: Path) -> None:
    data = data_of(store, tmp_path)
    for places, name in zip(data["records"]["recipe"], data["records"]["id"], strict=True):
        fields = zip(data["recipes"].items(), places, strict=True)
        assert Recipe.model_validate({field: values[place] for (field, values), place in fields}).id == name
    assert [len(values) for values in data["recipes"].values()].count(1) == 7  # what never varies is there once


def test_numbers_that_are_not_finite_are_unknown(store: Store, tmp_path: Path) -> None:
    store.append([make_record(recipe(0.9), accuracy=math.nan, latency=math.inf)])
    data = data_of(store, tmp_path)
    assert (data["records"]["accuracy"][-1], data["records"]["latency"][-1]) == (None, None)
    json.dumps(data, allow_nan=False)


def test_savings_are_counted_by_training(store: Store) -> None:
    assert savings(store.searched) == Savings(
        stopped=1,
        stopped_epochs=16,  # 20 - 4
        screened=1,
        screened_epochs=30,
        leaves=1,  # int8 of a trunk that was trained for its float leaf
        trained=10 + 10 + 4 + 10,  # the failed one counts as trained to its end, as in the search's own budget
        seconds=(50.0 + 30.0 + 16.0) / 34,
    )
    assert savings([]).seconds is None


def test_rivals_carry_what_was_measured_and_their_recipe(store: Store, tmp_path: Path) -> None:
    plain = Recipe(image_size=64, quantize=Int8Static())
    rival = plain.model_copy(update={"export": plain.export.model_copy(update={"fast_dfl": False})})
    measured = [make_record(rival, accuracy=0.55, latency=0.7, size=0.3)]
    result = summary(CONFIG, store, tmp_path)
    found = contributions(
        result, store.records, measured, image_size=64, objectives=CONFIG.objectives, stock="there is none"
    )
    data = report_data(CONFIG, store, result, [], found)
    rivals = {row["name"]: row for row in data["rivals"]}
    own = rivals["int8 alone"]
    assert (own["accuracy"], own["latency"], own["ms"], own["mb"]) == (0.55, 0.7, 7.0, 3.0)
    values = zip(data["recipes"].items(), own["recipe"], strict=True)
    assert Recipe.model_validate({field: all_[place] for (field, all_), place in values}).id == rival.id
    assert "accuracy" not in rivals["the next smaller stock model"]
    assert {pick["record_id"] for pick in data["contributions"]} == {member["record_id"] for member in result["front"]}


def test_dimensions_are_what_varies_while_it_is_there() -> None:
    recipes = [recipe(0.25), recipe(0.5, int8=True), Recipe(image_size=64)]
    found = {own.name: own for own in dimensions(recipes)}
    assert list(found) == ["prune.kind", "prune.channels.ratio", "finetune.kind", "quantize.kind"]
    assert found["prune.channels.ratio"].values == (0.25, 0.5, None)
    assert found["quantize.kind"].categories == ("fp32", "int8")
    assert found["quantize.kind"].values == (0.0, 1.0, 0.0)


def test_importance_finds_what_the_result_was_made_of() -> None:
    rng = np.random.default_rng(0)
    drawn = [(float(rng.uniform(0.1, 0.9)), int(rng.integers(1, 40)), bool(rng.integers(2))) for _ in range(80)]
    recipes = [recipe(ratio, epochs=epochs, int8=int8) for ratio, epochs, int8 in drawn]
    results = [ratio + 0.3 * int8 for ratio, _, int8 in drawn]
    found = importance(recipes, results)
    assert found is not None and found.telling
    assert found.r2 > 0.7
    ranked = sorted(found.falls, key=lambda name: -found.falls[name])
    assert ranked[:2] == ["prune.channels.ratio", "quantize.kind"]
    assert abs(found.falls["finetune.train.epochs"]) < 0.1 * found.falls["prune.channels.ratio"]


def test_importance_of_noise_is_not_told() -> None:
    rng = np.random.default_rng(1)
    found = importance([recipe(ratio) for ratio in rng.uniform(0.1, 0.9, 60).round(4)], rng.random(60).tolist())
    assert found is not None and not found.telling


def test_leaves_of_one_trunk_are_not_split_from_one_another() -> None:
    """Results that are random for each trunk and equal in it can be looked up only if a leaf of it was seen."""
    rng = np.random.default_rng(2)
    drawn = zip(rng.uniform(0.1, 0.9, 40).tolist(), rng.random(40).tolist(), strict=True)
    pairs = [(recipe(ratio, int8=int8), result) for ratio, result in drawn for int8 in (False, True)]
    found = importance([own for own, _ in pairs], [result for _, result in pairs])
    assert found is not None and found.r2 < 0.1


def test_too_few_records_have_no_importance() -> None:
    assert importance([recipe(0.1 * n) for n in range(1, 9)], [0.1 * n for n in range(8)]) is None
    assert importance([], []) is None


class Scripts(HTMLParser):
    """The scripts of a page as a browser splits it, and its other tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.tags, self._inside = list[str](), list[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def test_data_cannot_leave_its_script_element() -> None:
    hostile = {"a": "</script><img src=x onerror=alert(1)>", "b": "<!--<script>", "c": "\u2028&amp;"}
    parsed = Scripts(f"<script>{embedded_json(hostile)}</script><p>")
    assert parsed.tags == ["script", "p"]
    assert json.loads(parsed.scripts[0]) == hostile
    with pytest.raises(ValueError, match="JSON"):
        embedded_json({"x": math.nan})


def test_the_page_has_all_its_parts_and_names_no_server(store: Store, tmp_path: Path) -> None:
    write_all(CONFIG, store, tmp_path, out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Scripts(text)
    assert json.loads(parsed.scripts[0])["records"]["reason"][5] == "</script><b>&"
    assert "{{" not in text.replace(parsed.scripts[1], "")
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not {"iframe", "img", "object"} & set(parsed.tags)
    again = tmp_path / "again.html"
    write_all(CONFIG, store, tmp_path, out=again)
    assert again.read_text(encoding="utf-8") == text


def test_a_title_is_not_markup(store: Store, tmp_path: Path) -> None:
    data = {**data_of(store, tmp_path), "title": "<b>{{data}}</b>", "pictures": {"why": "-"}, "notes": {}}
    text = page(data)
    assert "<title>&lt;b&gt;{{data}}&lt;/b&gt;: the front</title>" in text


def test_the_csv_is_the_front_and_the_baseline(store: Store, tmp_path: Path) -> None:
    result = summary(CONFIG, store, tmp_path)
    rows = list(csv.DictReader(StringIO(front_csv(result))))
    assert [row["record_id"] for row in rows] == [*(m["record_id"] for m in result["front"]), "baseline"]
    assert [float(row["latency_ratio"]) for row in rows] == [0.3, 0.6, 1.0]
    assert [float(row["latency_ratio_ci_high"]) for row in rows] == pytest.approx([0.303, 0.606, 1.01])
    assert rows[0]["recipe"] == "64px · prune 0.25 l2/layer · 10 epochs · int8"


def test_places_of_parts_are_stable() -> None:
    recipes = Recipes()
    assert recipes.add(recipe(0.5)) == recipes.add(recipe(0.5))
    assert recipes.add(recipe(0.6)) != recipes.add(recipe(0.5))


def test_pictures_say_why_there_are_none(tmp_path: Path) -> None:
    assert pictures(tmp_path, {})["why"] == "the study's data is not beside this report"
    view = tmp_path / "data" / "data.yaml"
    view.parent.mkdir()
    view.write_text(yaml.safe_dump({"task": "classify", "names": {0: "a"}}), encoding="utf-8")
    assert pictures(tmp_path, {})["why"] == "only detection has boxes"
    view.write_text(yaml.safe_dump({"names": {0: "a"}}), encoding="utf-8")
    assert "validation images are not where" in pictures(tmp_path, {})["why"]
    images = tmp_path / "data" / "images" / "val"
    images.mkdir(parents=True)
    Image.new("RGB", (900, 300)).save(images / "one.png")
    assert pictures(tmp_path, {"a": "artifacts/a/model.onnx"})["why"] == "artifacts/a/model.onnx is not there"
    labels = tmp_path / "data" / "labels" / "val"
    labels.mkdir(parents=True)
    (labels / "one.txt").write_text("0 0.5 0.5 0.2 0.4\n", encoding="utf-8")
    [found] = pictures(tmp_path, {})["images"]
    assert (found["width"], found["height"], found["labels"]) == (420, 140, [[0.4, 0.3, 0.2, 0.4, None, 0]])
