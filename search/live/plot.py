"""Small pictures in characters: points on two axes, and a line of bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from search.live.totals import Point

BARS = "▁▂▃▄▅▆▇█"
LABEL = 7  # columns of the numbers on the left


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is shown of the plane: ``x`` and ``y`` from the least to the most."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, point: Point, columns: int, rows: int) -> tuple[int, int] | None:
        """Column and row of a point, counted from the upper left; None if it is outside."""
        (left, right), (low, high) = self.x, self.y
        if not (left <= point[0] <= right and low <= point[1] <= high):
            return None
        across, up = (point[0] - left) / (right - left), (point[1] - low) / (high - low)
        return round(across * (columns - 1)), round((1 - up) * (rows - 1))


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points that share a mark; later series are drawn over earlier ones."""

    mark: str
    style: str
    points: Sequence[Point]


def around(points: Iterable[Point]) -> Window:
    """A window from x = 0 that holds all points, with a little room."""
    known = list(points)
    xs, ys = [x for x, _ in known], [y for _, y in known]
    room = 0.08 * (max(ys) - min(ys)) or 0.05 * abs(max(ys)) or 0.05
    return Window(x=(0.0, max(xs) * 1.05 or 1.0), y=(min(ys) - room, max(ys) + room))


def scatter(
    series: Sequence[Series], window: Window, *, width: int, height: int, titles: tuple[str, str]
) -> list[Text]:
    """The points as ``height`` lines of ``width`` characters, the two lowest for the axis and its numbers.

    ``titles`` say what goes across and what goes up.
    """
    columns, rows = width - LABEL, height - 2
    grid = [[(" ", "")] * columns for _ in range(rows)]
    for own in series:
        for point in own.points:
            if found := window.place(point, columns, rows):
                grid[found[1]][found[0]] = (own.mark, own.style)
    low, high = window.y
    marked = {row: high - (high - low) * row / max(1, rows - 1) for row in {0, rows // 2, rows - 1}}
    lines = list[Text]()
    for row, cells in enumerate(grid):
        label = f"{marked[row]:.3f} ┤" if row in marked else "│"
        lines.append(_row(label.rjust(LABEL), cells))
    title = f" {titles[1]} "
    lines[0] = Text.assemble(lines[0][:LABEL], (title, "dim"), lines[0][LABEL + len(title) :])
    return [*lines, Text("└".rjust(LABEL) + "─" * columns, "dim"), _numbers(window, columns, titles[0])]


def _row(label: str, cells: Sequence[tuple[str, str]]) -> Text:
    """A line with as few styled parts as there are marks with a style: each costs time whenever it is drawn."""
    text = Text(label + "".join(mark for mark, _ in cells))
    text.stylize("dim", 0, len(label))
    for place, (_, style) in enumerate(cells, start=len(label)):
        if style:
            text.stylize(style, place, place + 1)
    return text


def _numbers(window: Window, columns: int, title: str) -> Text:
    left, right = window.x
    ends = f"{left:.2f}", f"{right:.2f}"
    middle = title.center(columns - len(ends[0]) - len(ends[1]) + 1)
    return Text(" " * (LABEL - 1) + ends[0] + middle + ends[1], "dim")


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars from their least to their most, the last one of each of ``width`` equal shares."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    chosen = [values[(place + 1) * len(values) // count - 1] for place in range(count)]
    low, high = min(chosen), max(chosen)
    steps = [0 if high == low else round((value - low) / (high - low) * (len(BARS) - 1)) for value in chosen]
    return "".join(BARS[step] for step in steps)
