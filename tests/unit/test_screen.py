"""Screening by hand-made cases: only what could not join the front, even at no loss of accuracy, is turned away."""

from __future__ import annotations

from typing import Any

import pytest

from search.measure.latency import Latency
from search.record import Objective
from search.screen import Bar, Expectation, Rival, why_not_worth, why_screened
from search.study import Constraints
from search.trial import Task, screened_trunk
from spaces.recipe import Fp32, Int8Static, Recipe
from tests.fakes import make_record

BASELINE = 0.60
ACCURACY_LATENCY: tuple[Objective, ...] = ("accuracy", "latency")
ACCURACY_SIZE: tuple[Objective, ...] = ("accuracy", "size")
ALL: tuple[Objective, ...] = ("accuracy", "latency", "size")


def screened(
    bar: Bar, *, ratio: float = 0.5, low: float | None = None, size: float = 0.5, waiting: float = 0.0
) -> str | None:
    """The reason for a recipe at this latency (20 ms at ratio 1, of a core that others left) and size (10 MB)."""
    low = 0.96 * ratio if low is None else low
    latency = Latency(
        p50_ms=20 * ratio / (1 - waiting),
        p95_ms=22 * ratio / (1 - waiting),
        fps=50 / ratio,
        ratio=ratio,
        ratio_low=low,
        ratio_high=1.04 * ratio,
        baseline_p50_ms=20.0 / (1 - waiting),
        waiting=waiting,
        runs=50,
        threads=1,
        clock="thread-cpu",
        cores=None,
    )
    return why_screened(latency, size_bytes=round(size * 1e7), size_ratio=size, bar=bar)


def bar(
    *rivals: tuple[float, float, float], objectives: tuple[Objective, ...] = ACCURACY_LATENCY, **limits: Any
) -> Bar:
    """Rivals are (accuracy, latency, size)."""
    return Bar(
        reachable_accuracy=BASELINE,
        rivals=tuple(Rival(id=f"r{n}", accuracy=a, latency=t, size=s) for n, (a, t, s) in enumerate(rivals)),
        constraints=Constraints(**limits),
        objectives=objectives,
    )


def test_nothing_is_screened_without_limits_and_rivals() -> None:
    assert screened(bar(), ratio=3.0, size=3.0) is None


@pytest.mark.parametrize(
    ("limits", "ratio", "reason"),
    [
        ({"max_latency_ratio": 0.5}, 0.60, "latency ratio 0.576 is over the limit 0.5"),
        ({"max_latency_ratio": 0.5}, 0.51, None),  # its interval reaches below the limit
        ({"max_latency_ms": 10}, 0.60, "latency in ms 12 is over the limit 10"),
        ({"max_latency_ms": 12}, 0.60, None),
        ({"max_size_mb": 4.9}, 0.50, "size in MB 5 is over the limit 4.9"),
        ({"max_size_mb": 5}, 0.50, None),
        ({"max_accuracy_drop": 0.0}, 0.50, None),  # unknown before training
    ],
)
def test_limits(limits: dict[str, Any], ratio: float, reason: str | None) -> None:
    assert screened(bar(**limits), ratio=ratio, size=0.5) == reason


def test_milliseconds_in_which_others_had_the_core_do_not_count() -> None:
    """Half of the 24 ms went by waiting; a recipe that is screened is never tried again."""
    assert screened(bar(max_latency_ms=12), ratio=0.6, waiting=0.5) is None
    reason = screened(bar(max_latency_ms=10), ratio=0.6, waiting=0.5)
    assert reason == "latency in ms 12 is over the limit 10"


def test_a_limit_counts_though_it_is_no_objective() -> None:
    assert screened(bar(objectives=ACCURACY_SIZE, max_latency_ratio=0.5), ratio=0.6) is not None


def test_a_faster_rival_that_keeps_the_accuracy_screens() -> None:
    reason = screened(bar((0.60, 0.40, 9.0)), ratio=0.5)
    assert reason == "record r0 is no worse in latency (ratio 0.4 against 0.5) and has the best accuracy so far"


@pytest.mark.parametrize(
    ("rival", "why"),
    [
        ((0.599, 0.10, 0.1), "it lost accuracy, so a recipe that loses none would be on the front"),
        ((0.650, 0.49, 0.1), "the interval of the recipe reaches below it"),
        ((0.650, 0.80, 0.1), "it is slower"),
    ],
)
def test_a_rival_does_not_screen(rival: tuple[float, float, float], why: str) -> None:
    assert screened(bar(rival), ratio=0.5) is None, why


def test_the_low_end_of_the_interval_is_what_counts() -> None:
    rivals = bar((0.60, 0.40, 0.1))
    assert screened(rivals, ratio=0.5, low=0.41) is not None
    assert screened(rivals, ratio=0.5, low=0.40) is not None
    assert screened(rivals, ratio=0.5, low=0.39) is None


def test_the_first_rival_that_screens_is_named() -> None:
    reason = screened(bar((0.5, 0.1, 0.1), (0.6, 0.3, 0.1), (0.6, 0.2, 0.1)), ratio=0.5)
    assert reason is not None
    assert reason.startswith("record r1 is no worse")


@pytest.mark.parametrize(
    ("objectives", "latency", "size", "out"),
    [
        (ACCURACY_SIZE, 0.9, 0.4, True),  # slower, but latency is no objective
        (ACCURACY_SIZE, 0.1, 0.6, False),
        (ACCURACY_LATENCY, 0.4, 0.9, True),  # bigger, but size is no objective
        (ALL, 0.4, 0.6, False),
        (ALL, 0.6, 0.4, False),
        (ALL, 0.4, 0.4, True),
        (ALL, 0.4, 0.5, True),  # equal in size
    ],
)
def test_only_objectives_are_compared(
    objectives: tuple[Objective, ...], latency: float, size: float, out: bool
) -> None:
    reason = screened(bar((0.6, latency, size), objectives=objectives), ratio=0.5, size=0.5)
    assert (reason is not None) == out
    if reason is not None:
        assert [name for name in ALL[1:] if f"{name} (ratio" in reason] == list(objectives[1:])


@pytest.mark.parametrize("objectives", [("accuracy", "size"), ("size", "accuracy")])
def test_a_reason_about_size_gives_the_sizes(objectives: tuple[Objective, ...]) -> None:
    reason = screened(bar((0.6, 0.9, 0.4), objectives=objectives), ratio=0.5, size=0.5)
    assert reason == "record r0 is no worse in size (ratio 0.4 against 0.5) and has the best accuracy so far"


@pytest.mark.parametrize(
    ("least", "floor", "reason"),
    [
        (0.10, 0.0, None),
        (0.12, 0.0, "with this latency and size it would add 0.11 of hypervolume, another recipe 0.12"),
        (0.10, 0.7, "with this latency and size it would add 0 of hypervolume, another recipe 0.1"),
    ],
)
def test_a_trunk_has_to_be_worth_its_training(least: float, floor: float, reason: str | None) -> None:
    """By hand: .6 at .4 covers .6 * .6, the front of .5 at .5 has .25 of it; size is no objective."""
    expected = Expectation(accuracy=((0.6,), (0.5,)), front=((0.5, 0.5),), floor=floor, least=least)
    assert why_not_worth([(0.4, 9.0), (0.8, 9.0)], expected, ACCURACY_LATENCY) == reason


def test_a_trunk_that_is_not_worth_it_is_screened_with_all_its_leaves() -> None:
    leaves = tuple(Recipe(image_size=64, quantize=quantize) for quantize in (Fp32(), Int8Static()))
    expected = Expectation(accuracy=((0.6,), (0.6,)), front=((0.5, 0.5),), floor=0.0, least=0.2)
    task = Task(leaves=leaves, bar=bar(), expected=expected)
    timed = {leaf.id: make_record(leaf, latency=0.6, state="stopped") for leaf in leaves}
    timed[leaves[0].id] = make_record(leaves[0], latency=0.9, state="screened", reason="too slow")
    found = screened_trunk(timed, task)
    assert [record.state for record in found.values()] == ["screened", "screened"]
    assert found[leaves[0].id].reason == "too slow"
    assert "another recipe 0.2" in found[leaves[1].id].reason
    assert screened_trunk(timed, task.model_copy(update={"expected": None})) == timed
    cheap = expected.model_copy(update={"least": 0.01})
    assert screened_trunk(timed, task.model_copy(update={"expected": cheap})) == timed
