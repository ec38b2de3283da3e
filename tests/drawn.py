"""What a page of records has drawn, and a study of very many, for tests of the report and of the live page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.record import Record
from search.store import Store, write_atomically
from search.study import StudyConfig
from spaces.recipe import ChannelPrune, Finetune, Fp32, Int8Static, Recipe
from tests.fakes import make_baseline, make_record

STUDY = Path(__file__).resolve().parents[1] / "results" / "bccd-front"
MANY = 10_000
SECONDS = 3.0  # in which a report of that many records is there


def finished(records: Sequence[Record]) -> list[tuple[float, float, float]]:
    """Latency ratio, accuracy and milliseconds of each finished record, from the study's own file."""
    return [
        (r.measurement.latency.ratio, r.measurement.accuracy.value, r.measurement.latency.quiet_ms)
        for r in records
        if r.state == "complete" and r.measurement and r.measurement.accuracy
    ]


def drawn_points(page: Any) -> np.ndarray:
    """The points as a reader of the drawn axes would read them: (n, 2), by a line through the ticks' labels."""
    ticks = """axis => [...document.querySelectorAll(`#front-chart .tick-${axis}`)].map(
        tick => [Number(tick.getAttribute(axis)), Number(tick.textContent)])"""
    across, up = (np.polyfit(*zip(*page.evaluate(ticks, axis), strict=True), deg=1) for axis in "xy")
    circles = page.eval_on_selector_all(
        "#front-chart .records .record", "all => all.map(one => [one.cx.baseVal.value, one.cy.baseVal.value])"
    )
    places = np.array(circles).reshape(-1, 2)
    return np.column_stack([np.polyval(across, places[:, 0]), np.polyval(up, places[:, 1])])


def nearest_gaps(drawn: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The largest distance in each coordinate when each true point is matched with a drawn one of its own."""
    from scipy.optimize import linear_sum_assignment

    gaps = np.abs(drawn[:, None] - true[None])
    rows, columns = linear_sum_assignment(gaps.sum(axis=2))
    return gaps[rows, columns].max(axis=0)


def many(folder: Path) -> tuple[StudyConfig, Store]:
    """A study of made-up records: 5,000 trunks with two leaves each, of which a fifth was screened."""
    content = {
        "name": "many",
        "model": "a.pt",
        "data": "d.yaml",
        "image_size": 64,
        "objectives": ["accuracy", "latency", "size"],
    }
    config = StudyConfig.model_validate(content)
    rng = np.random.default_rng(0)
    made: list[Record] = [make_baseline()]
    for number in range(MANY // 2):
        ratio, epochs = float(rng.uniform(0.05, 0.95)), int(rng.integers(5, 60))
        trunk = {
            "prune": ChannelPrune(ratio=ratio),
            "finetune": Finetune(epochs=epochs, lr=float(rng.uniform(1e-4, 1e-2))),
        }
        accuracy = 0.6 - 0.3 * ratio**2 - float(rng.exponential(0.05))
        curve = tuple((epoch, accuracy * (1 - 0.5 / (1 + epoch))) for epoch in range(1, epochs, 10))
        for quantize, faster in ((Fp32(), 1.0), (Int8Static(), 0.5)):
            record = make_record(
                Recipe(image_size=64, quantize=quantize, **trunk),
                accuracy=accuracy if number % 5 else None,
                latency=faster * (1 - 0.9 * ratio) * float(rng.uniform(0.9, 1.1)),
                size=faster * (1.02 - ratio),
                state="complete" if number % 5 else "screened",
                reason="" if number % 5 else f"with this latency it would add {rng.random():.3g} of hypervolume",
            )
            made.append(record.model_copy(update={"curve": curve if number % 5 else (), "at": 60.0 * number}))
    write_atomically(folder / "study.yaml", config.to_yaml())
    store = Store(folder)
    store.append(made)
    return config, store
