"""The live view as lines of text: pure, so that it can be looked at in a console of any size."""

from __future__ import annotations

from rich.text import Text

from search.live.plot import Series, around, scatter, sparkline
from search.live.snapshot import Running, Snapshot, clock
from search.live.totals import Totals, point

STATES = {"complete": "green", "screened": "magenta", "stopped": "yellow", "failed": "red"}
LEAST_PLOT = 6  # lines: less shows nothing
MOST_PLOT = 22
NODE = 14  # columns


class FrontPlot:
    """``front_plot``, drawn anew only for other records or another size: with many records that takes a while."""

    def __init__(self) -> None:
        self._drawn: tuple[object, list[Text]] = (None, [])

    def __call__(self, totals: Totals, *, width: int, height: int) -> list[Text]:
        """The plot's lines."""
        key = (totals.version, width, height)
        if self._drawn[0] != key:
            self._drawn = (key, front_plot(totals, width=width, height=height))
        return self._drawn[1]


def view(
    snapshot: Snapshot, totals: Totals, log: list[str], *, width: int, height: int, plot: FrontPlot | None = None
) -> list[Text]:
    """At most ``height`` lines of at most ``width`` columns: head, plot, workers, log.

    The plot has what the others leave, the workers at most a third, the log at least three lines.
    """
    draw = plot or front_plot
    head = [_title(snapshot, width), _counts(totals), _growth(totals, width)]
    workers = _workers(snapshot, width, limit=max(2, height // 3))
    left = height - len(head) - len(workers) - 1  # a line above the log
    plotted = min(left - 3, MOST_PLOT)
    drawn = draw(totals, width=width, height=plotted) if plotted >= LEAST_PLOT else []
    rest = left - len(drawn)
    lines = [*head, *drawn, *workers, _rule("log", width), *(Text(line, "dim") for line in log[-rest:] if rest > 0)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def front_plot(totals: Totals, *, width: int, height: int) -> list[Text]:
    """Accuracy over latency of the finished records, not those far below the front; none before the baseline."""
    front = [point(record) for record in totals.front]
    if totals.baseline is None or totals.baseline.measurement is None or totals.baseline.measurement.accuracy is None:
        return []
    baseline = point(totals.baseline)
    series = (
        Series(mark="·", style="", points=totals.points),
        Series(mark="★", style="red", points=[baseline]),
        Series(mark="◆", style="bold green", points=front),
    )
    metric = totals.baseline.measurement.accuracy.metric
    across = "latency, ratio   ◆ front  · others  ★ baseline"
    return scatter(series, around([*front, baseline]), width=width, height=height, titles=(across, metric))


def _title(snapshot: Snapshot, width: int) -> Text:
    now = snapshot.heartbeat
    left = "" if snapshot.seconds_left is None else f" · about {clock(snapshot.seconds_left)} left"
    times = f"{clock(now - snapshot.started)}{left}"
    room = width - len(times) - 2
    name = Text.assemble((snapshot.name, "bold"), ("  " + snapshot.stage, ""))
    name.truncate(max(0, room), overflow="ellipsis", pad=True)
    return Text.assemble(name, "  ", (times, "cyan"))


def _counts(totals: Totals) -> Text:
    counts = ((f"{totals.states.get(state, 0)} {state}  ", style) for state, style in STATES.items())
    return Text.assemble("records  ", *counts)


def _growth(totals: Totals, width: int) -> Text:
    text = Text(f"front    {len(totals.front)} records, hypervolume {totals.hypervolume:.4f}  ")
    volumes = [moment.hypervolume for moment in totals.moments]
    return text.append(sparkline(volumes, width - text.cell_len), "green")


def _workers(snapshot: Snapshot, width: int, *, limit: int) -> list[Text]:
    limited = "" if snapshot.trials_limit is None else f"/{snapshot.trials_limit}"
    title = _rule(f"trials {snapshot.trials}{limited}, {len(snapshot.running)} under way", width)
    shown = snapshot.running if len(snapshot.running) <= limit - 1 else snapshot.running[: limit - 2]
    lines = [_worker(running, snapshot.heartbeat, width) for running in shown]
    more = len(snapshot.running) - len(shown)
    return [title, *lines, *([Text(f"… and {more} more", "dim")] if more else [])]


def _worker(running: Running, now: float, width: int) -> Text:
    step = f"{running.step} {running.done}/{running.total}" if running.total else running.step
    end = f"{step:>15}  {clock(now - running.since):>7}"
    node = Text(running.node, "dim")
    node.truncate(NODE, overflow="ellipsis", pad=True)
    text = Text(running.text)
    text.truncate(max(0, width - NODE - len(end) - 2), overflow="ellipsis", pad=True)
    return Text.assemble(node, " ", text, " ", (end, "cyan"))


def _rule(title: str, width: int) -> Text:
    return Text(f"── {title} ".ljust(width, "─"), "dim")
