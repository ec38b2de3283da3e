"""The choice of places to cut, beside trying all of them."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.split.balance import balance

Cut = tuple[int, ...]


def dearest(cut: Cut, before: list[float], whole: float, sending: list[float]) -> float:
    ends = [(0.0, 0.0), *((before[index], sending[index]) for index in cut), (whole, 0.0)]
    return max(end - start + left + right for (start, left), (end, right) in pairwise(ends))


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[float], float, list[float], list[int], int]:
    count = draw(st.integers(1, 8))
    steps = draw(st.lists(st.integers(0, 9), min_size=count + 1, max_size=count + 1))
    before = [float(value) for value in np.cumsum(steps)]
    nbytes = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    rate = draw(st.sampled_from([0.0, 0.25, 1.0]))
    stages = draw(st.integers(1, min(4, count + 1)))
    return before[:-1], before[-1], [value * rate for value in nbytes], nbytes, stages


@given(chains(), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_slowest_stage_and_then_the_bytes_are_the_least_of_all_choices(
    chain: tuple[list[float], float, list[float], list[int], int], slack: float
) -> None:
    before, whole, sending, nbytes, stages = chain
    found = balance(before, whole, sending, nbytes, stages, slack)
    assert len(found) == stages - 1 and list(found) == sorted(set(found))
    every = list(combinations(range(len(before)), stages - 1))
    costs = {cut: dearest(cut, before, whole, sending) for cut in every}
    limit = min(costs.values()) * (1 + slack)
    assert costs[found] <= limit
    assert sum(nbytes[index] for index in found) == min(
        sum(nbytes[index] for index in cut) for cut, cost in costs.items() if cost <= limit
    )


def test_a_little_balance_is_given_for_fewer_bytes_and_no_more() -> None:
    before, nbytes = [49.5, 50.0, 70.0], [10, 1000, 1]
    assert balance(before, 100, [0, 0, 0], nbytes, 2) == (0,)
    assert balance(before, 100, [0, 0, 0], nbytes, 2, slack=0) == (1,)


def test_what_is_handed_over_counts_on_both_sides() -> None:
    assert balance([40.0, 50.0], 100, [0.0, 15.0], [0, 0], 2) == (0,)
    assert balance([40.0, 50.0], 100, [0.0, 5.0], [0, 0], 2) == (1,)


def test_there_are_no_more_stages_than_places_make() -> None:
    assert balance([1.0, 2.0], 3, [0, 0], [1, 1], 3) == (0, 1)
    with pytest.raises(ValueError, match="2 places make 1 to 3 stages, not 4"):
        balance([1.0, 2.0], 3, [0, 0], [1, 1], 4)
