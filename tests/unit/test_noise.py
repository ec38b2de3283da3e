"""What noise leaves open: against brute force, and against simulated records whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from search.noise import differences, near_ties, possible_members, without_copies
from search.record import Objective, Record
from spaces.recipe import Recipe
from tests.fakes import make_record, on_images

BOTH: tuple[Objective, ...] = ("accuracy", "latency")
ALL: tuple[Objective, ...] = ("accuracy", "latency", "size")


def record(name: str, accuracy: float, latency: float, *, size: float = 0.5, wide: float = 0.01) -> Record:
    """A record whose ratio is known to ``wide``, and whose accuracy has no interval."""
    made = make_record(Recipe(image_size=64), accuracy=accuracy, latency=latency, size=size, record_id=name)
    assert made.measurement is not None
    own = replace(made.measurement.latency, ratio_low=latency * (1 - wide), ratio_high=latency * (1 + wide))
    return made.model_copy(update={"measurement": made.measurement.model_copy(update={"latency": own})})


def names(records: Sequence[Record]) -> list[str]:
    return [own.id for own in records]


def test_ratios_are_told_apart_when_their_intervals_do_not_overlap() -> None:
    fast, near, slow = record("fast", 0.5, 0.400), record("near", 0.5, 0.406), record("slow", 0.5, 0.410)
    found = differences([fast, near, slow], [fast], ("accuracy", "latency"))
    assert found.better[1].ravel().tolist() == [False, False, False]
    assert found.worse[1].ravel().tolist() == [False, False, True]  # .4059 is above .404
    assert found.ties.ravel().tolist() == [True, True, False]
    assert found.surely_dominated.ravel().tolist() == [False, False, True]  # as accurate, exactly


def test_two_models_are_compared_on_the_same_images() -> None:
    """One is right where the other is, and on six more of 400: within either's interval, but no chance."""
    right = np.arange(400) < 300
    more, fewer, other = right | (np.arange(400) >= 394), right, np.arange(400) >= 94
    ours = [on_images(record(name, 0.5, 0.5), hits) for name, hits in (("more", more), ("other", other))]
    found = differences(ours, [on_images(record("fewer", 0.5, 0.5), fewer)], ("accuracy", "latency"))
    assert found.better[0].ravel().tolist() == [True, False]  # the other is right on six more, too, but on others


def test_without_resamples_the_intervals_count_as_independent() -> None:
    def known(name: str, accuracy: float, half: float | None) -> Record:
        made = record(name, accuracy, 0.5)
        assert made.measurement is not None and made.measurement.accuracy is not None
        bounds = {} if half is None else {"low": accuracy - half, "high": accuracy + half}
        update = {"accuracy": replace(made.measurement.accuracy, **bounds)}
        return made.model_copy(update={"measurement": made.measurement.model_copy(update=update)})

    base = known("base", 0.5, 0.03)
    others = [known("a", 0.549, 0.04), known("b", 0.551, 0.04), known("c", 0.531, None), known("d", 0.529, None)]
    found = differences(others, [base], ("accuracy", "latency"))
    assert found.better[0].ravel().tolist() == [False, True, True, False]
    assert differences([others[2]], [others[3]], ("accuracy", "latency")).better[0].item()  # nothing known: exact


def test_sizes_within_a_percent_are_the_same() -> None:
    small, near, large = (record(name, 0.5, 0.5, size=size) for name, size in (("a", 0.2), ("b", 0.2018), ("c", 0.203)))
    assert differences([small, near, large], [small], ALL).ties.ravel().tolist() == [True, True, False]


def test_rivals_are_better_in_something_and_not_worse_in_anything() -> None:
    hits = np.arange(100) < 60
    base = on_images(record("base", 0, 0.5), hits)
    faster = on_images(record("faster", 0, 0.4), np.roll(hits, 1))
    slower = on_images(record("slower", 0, 0.6), np.roll(hits, 1))
    worse = on_images(record("worse", 0, 0.4), hits & (np.arange(100) < 30))
    found = differences([faster, slower, worse], [base], BOTH)
    assert found.may_dominate.ravel().tolist() == [True, False, False]
    assert found.surely_dominated.ravel().tolist() == [False, False, False]


def test_of_the_same_models_the_smallest_stays() -> None:
    hits = np.arange(400) < 300
    flipped = hits.copy()
    flipped[0] = False
    big = on_images(record("big", 0, 0.40, size=0.5), hits)
    small = on_images(record("small", 0, 0.401, size=0.4), flipped)
    assert names(without_copies([big, small], BOTH)) == ["small"]
    assert names(without_copies([big, small], ALL)) == ["big", "small"]  # told apart by their sizes
    # As accurate as far as can be told, but it is not known that they are.
    unlike = on_images(record("unlike", 0, 0.401, size=0.4), np.roll(hits, 60))
    assert differences([unlike], [big], BOTH).ties.item()
    assert names(without_copies([big, unlike], BOTH)) == ["big", "unlike"]


points = st.tuples(st.integers(0, 8), st.integers(1, 12), st.integers(1, 4), st.sampled_from([0.01, 0.1, 0.3]))


def is_dominated(point: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    return any(all(a <= b for a, b in zip(o, point, strict=True)) and tuple(o) != tuple(point) for o in others)


@given(st.lists(points, max_size=9), st.sampled_from([BOTH, ALL, ("size", "accuracy")]))
def test_possible_members_and_near_ties_are_those_of_brute_force(
    rows: list[tuple[int, int, int, float]], objectives: tuple[Objective, ...]
) -> None:
    made = [record(f"r{n}", a / 8, t / 12, size=s / 4, wide=w) for n, (a, t, s, w) in enumerate(rows)]

    def point(own: Record, end: str) -> list[float]:
        assert own.measurement is not None and own.measurement.accuracy is not None
        measured = own.measurement
        ratio = {"low": measured.latency.ratio_low, "high": measured.latency.ratio_high}[end]
        known = {"accuracy": -own.measurement.accuracy.value, "latency": ratio, "size": measured.size_ratio}
        return [known[objective] for objective in objectives]

    def dominates(one: Record, other: Record) -> bool:  # at the ends that favour one
        return one is not other and is_dominated(point(other, "high"), [point(one, "low")])

    possible = [r for r in made if not is_dominated(point(r, "low"), [point(o, "high") for o in made if o is not r])]
    assert names(possible_members(made, objectives)) == names(possible)
    close = [r for r in possible if any(dominates(o, r) or dominates(r, o) for o in possible)]
    assert names(near_ties(possible, objectives)) == names(close)
    # What could push a possible member off is possible too, so nothing was forgotten.
    assert all(any(dominates(p, r) for p in possible) for r in possible if any(dominates(o, r) for o in made))


# --- records whose truth is known

IMAGES, NOISE = 200, 0.01


def simulated(rng: np.random.Generator, skills: Sequence[float], ratios: Sequence[float]) -> list[Record]:
    """Models measured on the same images: the more skill, the harder the images that it is right on, on average. A
    ratio's interval covers the truth in 95 of 100 cases.
    """
    hard = rng.normal(size=IMAGES)
    made: list[Record] = []
    for number, (skill, ratio) in enumerate(zip(skills, ratios, strict=True)):
        right = rng.random(IMAGES) < expit(2 * (skill - hard))
        seen = ratio * math.exp(rng.normal(0, NOISE))
        made.append(on_images(record(f"r{number}", 0, seen, wide=1.96 * NOISE), right))
    return made


def test_sure_dominance_is_wrong_in_less_than_one_of_twenty_cases_and_not_empty() -> None:
    rng = np.random.default_rng(0)
    wrong = untrue = found_true = true = 0
    for _ in range(150):
        # Each is a little more accurate than the next, and a little slower: none dominates another.
        step = rng.uniform(0, 0.15)
        skills, ratios = [0.5 + step, 0.5, 0.5 - step - 0.01], [0.40, 0.40 / (1 + rng.uniform(0, 0.05)), 0.20]
        made = simulated(rng, skills, ratios)
        surely = differences(made, made, BOTH).surely_dominated
        wrong += int(surely.sum())
        untrue += 6
        # Far apart: this has to be found.
        worse, better = simulated(rng, [0.0, 1.0], [0.5, 0.4])
        found_true += int(differences([worse], [better], BOTH).surely_dominated.item())
        true += 1
    assert wrong / untrue < 0.05
    assert found_true / true > 0.9


def test_equal_accuracies_are_called_different_in_one_of_twenty_cases() -> None:
    """The paired interval holds what it says: 95 %, here of models that are equally good on average."""
    rng, called = np.random.default_rng(3), []
    for _ in range(400):
        one, other = simulated(rng, [0.3, 0.3], [0.5, 0.5])
        found = differences([one], [other], BOTH)
        called.append(bool(found.better[0].item() or found.worse[0].item()))
    assert 0.02 < np.mean(called) < 0.09
