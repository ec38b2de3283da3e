"""The front as a picture: every finished record, the front and the baseline."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from search.record import Record
from search.store import write_atomically


def plot_front(result: dict[str, Any], finished: list[Record], path: Path) -> None:
    """Writes an SVG of the accuracy over the latency ratio, with the intervals of the front's members."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points = [(r.measurement.latency.ratio, r.measurement.accuracy.value) for r in finished
              if r.measurement and r.measurement.accuracy]  # fmt: skip
    if points:
        axes.scatter(*zip(*points, strict=True), s=22, color="#9aa5b1", label="finished records")
    front = result["front"]
    if front:
        x, y = [m["latency_ratio"] for m in front], [m["accuracy"] for m in front]
        wide = _ends(x, [m["latency_ratio_ci"] for m in front])
        known = any(m["accuracy_ci"] for m in front)
        high = _ends(y, [m["accuracy_ci"] or [m["accuracy"]] * 2 for m in front]) if known else None
        axes.errorbar(x, y, xerr=wide, yerr=high, fmt="o-", color="#0b6e4f", elinewidth=0.8, capsize=2, label="front")
    base = result["baseline"]
    axes.scatter([base["latency_ratio"]], [base["accuracy"]], marker="*", s=160, color="#c8553d", label="baseline")
    axes.set_xlabel("latency, as a ratio to the FP32 baseline (lower is better)")
    axes.set_ylabel(f"{result['metric']} on the validation split")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    drawn = StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_atomically(path, drawn.getvalue())


def _ends(values: list[float], bounds: list[list[float]]) -> list[list[float]]:
    """How far the intervals reach below and above the values."""
    pairs = list(zip(values, bounds, strict=True))
    return [[value - low for value, (low, _) in pairs], [high - value for value, (_, high) in pairs]]
