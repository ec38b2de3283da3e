"""Studies of the same model and data side by side: the hypervolume that each had reached, over its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.results import open_study
from search.timeline import Moment, growth

TICKS = 6  # points in time that are printed


def compare(folders: Sequence[Path], minutes: float | None = None) -> dict[str, Any]:
    """How far each study was after ``minutes`` of search, and on the way, as one JSON object.

    Args:
        folders: study folders.
        minutes: when to look; by default the end of the shortest.

    Raises:
        UserError: a folder is no study with times, or the studies are not about the same.
    """
    studies = {folder: open_study(folder) for folder in folders}
    asked = {(config.model, str(config.data), config.objectives) for config, _ in studies.values()}
    if len(asked) > 1:
        raise UserError(
            "compare: the studies differ in model, data or objectives, so their hypervolumes do not compare"
        )
    curves = {folder: growth(config, store) for folder, (config, store) in studies.items()}
    for folder, moments in curves.items():
        if not moments:
            raise UserError(f"compare: {folder} has no trial with a time; studies of older versions have none")
    end = minutes or min(moments[-1].minutes for moments in curves.values())
    ticks = [end * (tick + 1) / TICKS for tick in range(TICKS)]
    return {
        "minutes": end,
        "studies": [
            {
                "folder": str(folder),
                "at": [_state(moments, tick) for tick in ticks],
                "growth": [[moment.minutes, moment.hypervolume] for moment in moments],
            }
            for folder, moments in curves.items()
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The comparison as plain text: a line a point in time, a column a study."""
    studies = result["studies"]
    lines = ["minutes  " + "  ".join(f"{study['folder']:>36}" for study in studies)]
    for number in range(TICKS):
        states = [study["at"][number] for study in studies]
        cells = [f"{s['hypervolume']:.4f} ({s['trials']} trials, {s['epochs']} epochs)" for s in states]
        lines.append(f"{states[0]['minutes']:7.1f}  " + "  ".join(f"{cell:>36}" for cell in cells))
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Draws the hypervolume over time, as steps, into an .svg or .png file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for study in result["studies"]:
        points = [point for point in study["growth"] if point[0] <= result["minutes"]]
        last = points[-1][1] if points else 0.0
        times, heights = zip(*[[0.0, 0.0], *points, [result["minutes"], last]], strict=True)
        axes.step(times, heights, where="post", label=Path(study["folder"]).name)
    axes.set(xlabel="minutes of search", ylabel="hypervolume")
    axes.legend(loc="lower right")
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    figure.savefig(temporary)
    temporary.replace(path)


def _state(moments: Sequence[Moment], minutes: float) -> dict[str, float]:
    reached = [moment for moment in moments if moment.minutes <= minutes]
    last = reached[-1] if reached else Moment(minutes=0.0, trials=0, epochs=0, hypervolume=0.0)
    return {"minutes": minutes, "trials": last.trials, "epochs": last.epochs, "hypervolume": last.hypervolume}
