"""Pictures a second, of the candidate and the baseline in short turns.

Several streams finish when the slowest does, so the wall clock is all that counts, and the machine has to be quiet;
``waiting`` says how quiet it was. Turns are short and alternate, so that what slows the machine down for seconds
slows down both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.measure.pairs import Clock, ProcessClock, Run
from search.measure.ratio import paired_ratio
from search.runtimes.session import Runtime, checked, made_up
from search.runtimes.table import open_session

TURNS = 8  # of each of the two
SECONDS = 0.25  # of a turn, or one run if that takes longer
WARM_UP = 2  # runs of each stream before a turn

Opener = Callable[[], Sequence[Run]]  # loads a model so many times, and gives what runs each once


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What some streams did at once: pictures a second, and the share of their time in which they did not compute."""

    rate: float
    waiting: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Pictures a second, the median over turns, and their ratio to the baseline's with its 95 % interval.

    More is better: a ratio of 2 is twice as many. ``waiting`` is the share of the streams' time in which none of this
    process computed for them, the worse of the two: other work held the cores. None with several threads a stream,
    which wait for one another as well, and on a GPU, which they wait for.
    """

    rate: float
    against_rate: float
    ratio: tuple[float, float, float]
    waiting: float | None


def measure_throughput(
    candidate: Path, baseline: Path, *, runtime: Runtime, streams: int = 1, batch: int = 1, seed: int = 0
) -> Throughput:
    """Times both files, ``streams`` sessions of each at once, on inputs of ``batch`` pictures.

    Args:
        candidate: the file in question, whose input is of ``batch`` pictures.
        baseline: the file to compare with, alike.
        runtime: what runs them; each stream has its threads.
        streams: sessions that run at once, each in a thread of its own.
        batch: pictures in one run.
        seed: of the input.

    Raises:
        MeasurementError: a file is refused by the runtime.
    """

    def opener(path: Path) -> Opener:
        def opened() -> list[Run]:
            sessions = [open_session(path, runtime) for _ in range(streams)]
            return [checked(session.bind(made_up(session, path, seed)), path) for session in sessions]

        return opened

    told = runtime.threads == 1 and runtime.part.device == "cpu"
    return take_turns((opener(candidate), opener(baseline)), batch=batch, waiting=told, clock=ProcessClock())


def take_turns(openers: tuple[Opener, Opener], *, batch: int, waiting: bool, clock: Clock) -> Throughput:
    """The two in turn, loaded anew for each turn, the one or the other first; ``waiting`` is whether that is told."""
    turns: list[list[Turn]] = [[], []]
    for number in range(TURNS):
        for column in (0, 1) if number % 2 == 0 else (1, 0):
            turns[column].append(take_turn(openers[column](), batch=batch, seconds=SECONDS, clock=clock))
    ours, theirs = ([turn.rate for turn in own] for own in turns)
    waits = [float(np.median([turn.waiting for turn in own])) for own in turns]
    return Throughput(
        rate=float(np.median(ours)),
        against_rate=float(np.median(theirs)),
        ratio=paired_ratio(1 / np.array(theirs), 1 / np.array(ours), range(TURNS)),  # of rates, by their times
        waiting=max(waits) if waiting else None,
    )


def take_turn(runs: Sequence[Run], *, batch: int, seconds: float, clock: Clock) -> Turn:
    """Runs every stream again and again for so long, all at once, each on a thread of its own.

    A stream counts the runs that it finished, over the time that it took for these: the last one may end after the
    others'. So the rates of the streams add up.
    """
    for run in runs:
        for _ in range(WARM_UP):
            run()
    gate = threading.Barrier(len(runs))

    def stream(run: Run) -> tuple[float, float]:
        gate.wait()
        start, done = clock.wall(), 0
        while done == 0 or clock.wall() - start < seconds * 1e9:
            run()
            done += 1
        spent = (clock.wall() - start) / 1e9
        return done * batch / spent, spent

    computed = clock.cpu()
    with ThreadPoolExecutor(len(runs)) as pool:
        found = list(pool.map(stream, runs))
    computed = (clock.cpu() - computed) / 1e9
    rates, spent = zip(*found, strict=True)
    return Turn(rate=sum(rates), waiting=max(0.0, 1 - computed / sum(spent)))
