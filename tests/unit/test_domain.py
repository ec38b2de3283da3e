"""Domains: what is nearest, contained and suggested is inside; what is no domain is refused."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spaces.domain import Choice, Domain, Range, parse_domain

optuna.logging.set_verbosity(optuna.logging.WARNING)
SAMPLER = optuna.samplers.RandomSampler(seed=0)

decimals = st.integers(-10_000, 10_000).map(lambda n: n / 1000)
numbers = st.one_of(st.integers(-50, 50), decimals, st.floats(-1e6, 1e6))
anything = st.one_of(numbers, st.booleans(), st.text(max_size=3))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    """Whole or fractional, with and without a step (which need not divide the width), or on a log scale."""
    if draw(st.booleans()):
        low, width = draw(st.integers(-20, 20)), draw(st.integers(0, 40))
        return Range(low=low, high=low + width, step=draw(st.none() | st.integers(1, 9)))
    if draw(st.booleans()):
        low, factor = draw(st.floats(1e-9, 1e3)), draw(st.floats(1, 1e3))
        return Range(low=low, high=low * factor, log=True)
    low, width = draw(decimals), draw(st.integers(0, 5000)) / 1000
    step = draw(st.none() | st.sampled_from([0.001, 0.05, 0.1, 0.25, 0.3, 1.0]))
    return Range(low=low, high=round(low + width, 3), step=step)


choices = st.lists(anything, min_size=1, max_size=5).map(lambda values: Choice(values=tuple(values)))


def grid(domain: Range) -> list[float]:
    """Every value of a range that has a grid, counted up one by one in whole thousandths."""
    step = domain.step or 1
    low, high, step = (round(1000 * value) for value in (domain.low, domain.high, step))
    return [n / 1000 for n in range(low, high + 1, step)]


def suggest(domain: Domain) -> Any:
    return domain.suggest(optuna.create_study(sampler=SAMPLER).ask(), "x")


@given(ranges().filter(lambda domain: domain.step is not None or domain.integer), st.floats(-0.5, 1.5))
@example(Range(low=0, high=5, step=3), 1.0)  # the high end is not on the grid
@settings(deadline=None)
def test_nearest_on_a_grid_is_the_closest_by_brute_force(domain: Range, share: float) -> None:
    values, value = grid(domain), domain.low + share * (domain.high - domain.low)
    closest = min(abs(own - value) for own in values)
    found = domain.nearest(value)
    assert found in values
    assert abs(found - value) == pytest.approx(closest, abs=1e-9)


@given(ranges().filter(lambda domain: domain.step is None and not domain.integer), numbers)
@settings(deadline=None)
def test_nearest_without_a_grid_is_the_value_moved_to_the_closer_end(domain: Range, value: float) -> None:
    assert domain.nearest(value) == sorted([domain.low, value, domain.high])[1]


@given(ranges().filter(lambda domain: domain.step is not None), st.integers(-500, 6000))
@example(Range(low=0, high=5, step=3), 5000)
@settings(deadline=None)
def test_a_range_contains_exactly_its_grid(domain: Range, thousandths: int) -> None:
    value = round(1000 * domain.low + thousandths) / 1000
    assert domain.contains(value) == (value in grid(domain))
    assert all(domain.contains(value) for value in grid(domain))


@given(st.one_of(ranges(), choices), anything)
@example(Range(low=1 / 3, high=2 / 3, step=1 / 3), 0.5)
@settings(deadline=None)
def test_nearest_is_in_the_domain_and_leaves_its_members_alone(domain: Domain, value: Any) -> None:
    found = domain.nearest(value)
    assert domain.contains(found)
    assert domain.nearest(found) == found
    if domain.contains(value):
        assert found == value


@given(choices, numbers)
@settings(deadline=None)
def test_nearest_choice_is_the_closest_number_by_brute_force(domain: Choice, value: float) -> None:
    own = [v for v in domain.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    found = domain.nearest(value)
    if own:
        assert isinstance(found, (int, float))
        assert abs(found - value) == min(abs(v - value) for v in own)
    else:
        assert found == domain.values[0]


@pytest.mark.filterwarnings("ignore:The distribution is specified by:UserWarning")  # a step that does not divide
@given(st.one_of(ranges(), choices))
@example(Range(low=1 / 3, high=1 / 3))
@example(Range(low=1 / 3, high=2 / 3, step=1 / 3))
@example(Range(low=1e-14, high=1e-13, log=True))
@settings(deadline=None)
def test_suggestions_are_in_the_domain(domain: Domain) -> None:
    for _ in range(3):
        value = suggest(domain)
        assert domain.contains(value)
        if isinstance(domain, Range):
            assert isinstance(value, int) == domain.integer


@pytest.mark.filterwarnings("ignore:The distribution is specified by:UserWarning")
@pytest.mark.parametrize(
    ("domain", "every"),
    [
        (Range(low=1, high=4), {1, 2, 3, 4}),
        (Range(low=1, high=4, log=True), {1, 2, 3, 4}),
        (Range(low=8, high=27, step=8), {8, 16, 24}),
        (Range(low=0.1, high=0.45, step=0.1), {0.1, 0.2, 0.3, 0.4}),
        (Choice(values=("l1", "l2", 3, True)), {"l1", "l2", 3, True}),
    ],
)
def test_every_value_is_suggested_sooner_or_later(domain: Domain, every: set[Any]) -> None:
    assert {suggest(domain) for _ in range(100)} == every


def test_a_log_range_is_drawn_evenly_in_its_logarithm() -> None:
    values = [suggest(Range(low=1e-4, high=1.0, log=True)) for _ in range(200)]
    assert 70 < sum(value < 1e-2 for value in values) < 130
    assert all(1e-4 <= value <= 1 for value in values)


def test_a_constant_is_not_asked_about() -> None:
    trial = optuna.create_study(sampler=SAMPLER).ask()
    assert Choice(values=(7,)).suggest(trial, "x") == 7
    assert trial.params == {}


def test_true_is_not_one() -> None:
    assert not Choice(values=(1, 2)).contains(True)
    assert not Choice(values=(True, False)).contains(1)
    assert Choice(values=(True, False)).contains(False)
    assert not Range(low=0, high=2).contains(True)


def test_steps_of_a_tenth_are_the_numbers_that_a_person_writes() -> None:
    domain = Range(low=0.1, high=0.6, step=0.1)
    assert domain.contains(0.3)
    assert domain.nearest(0.31) == 0.3  # 0.1 + 2 * 0.1 is 0.30000000000000004


@pytest.mark.parametrize(
    ("content", "domain"),
    [
        (8, Choice(values=(8,))),
        ("l2", Choice(values=("l2",))),
        (True, Choice(values=(True,))),
        ([1, 2.5, "a"], Choice(values=(1, 2.5, "a"))),
        ({"low": 1, "high": 4}, Range(low=1, high=4)),
        ({"low": 0.1, "high": 0.6, "step": 0.1}, Range(low=0.1, high=0.6, step=0.1)),
        ({"low": 1e-4, "high": 1.0, "log": True}, Range(low=1e-4, high=1.0, log=True)),
    ],
)
def test_parse_domain(content: Any, domain: Domain) -> None:
    assert parse_domain(content, "space.x") == domain


ALLOWED = "allowed are a value, a list of values, or {low, high, step, log}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, f"None is no domain; {ALLOWED}"),
        ([], f"[] is no domain; {ALLOWED}"),
        ([1, [2]], f"[1, [2]] is no domain; {ALLOWED}"),
        ({}, f"{{}} is no domain; {ALLOWED}"),
        ({"low": 1}, f"{{'low': 1}} is no domain; {ALLOWED}"),
        ({"low": 1, "high": 2, "steps": 1}, f"is no domain; {ALLOWED}"),
        ({"low": "1", "high": 2}, "low, high and step must be numbers, not {'low': '1', 'high': 2}"),
        ({"low": True, "high": 2}, "low, high and step must be numbers"),
        ({"low": 3, "high": 2}, "low must not exceed high and step must be above 0, got {'low': 3, 'high': 2}"),
        ({"low": 1, "high": 2, "step": 0}, "low must not exceed high and step must be above 0"),
        ({"low": 0, "high": 2, "log": True}, "a log range needs low above 0 and takes no step"),
        ({"low": 1, "high": 2, "step": 1, "log": True}, "a log range needs low above 0 and takes no step"),
    ],
)
def test_what_is_no_domain_is_refused(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^space\.x: ") as caught:
        parse_domain(content, "space.x")
    assert message in str(caught.value)
