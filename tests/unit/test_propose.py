"""What is dropped before it is tried, what is chosen, and that what is in flight counts."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engine.archive import Archive
from search.engine.draw import draw
from search.engine.features import Encoder
from search.engine.predict import Predictor
from search.engine.propose import Limits, Proposer, thinned
from search.front import hypervolume, non_dominated
from search.screen import why_not_worth
from search.study import Constraints
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Finetune, Recipe
from spaces.space import Space
from tests.fakes import make_record

SPACE: dict[str, Any] = {
    "image_size": [64],
    "activation": ["silu", "relu"],
    "prune": {"kind": "channels", "ratio": {"low": 0.1, "high": 0.9, "step": 0.1}},
    "finetune": {"kind": "train", "epochs": [10, 40]},
    "quantize": [{"kind": "fp32"}, {"kind": "int8"}],
}


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE, name="test", image_size=64)


def recipe(ratio: float, *, epochs: int = 10, activation: Any = "silu") -> Recipe:
    return Recipe(
        image_size=64, activation=activation, prune=ChannelPrune(ratio=ratio), finetune=Finetune(epochs=epochs)
    )  # fmt: skip


def truth(leaf: Recipe) -> tuple[float, float, float]:
    """Accuracy, latency and size: what is pruned costs accuracy quadratically, int8 halves latency and size."""
    ratio = leaf.prune.ratio  # type: ignore[union-attr]
    cheap = 0.5 if leaf.quantize.kind == "int8" else 1.0
    return 0.6 - 0.4 * ratio**2, (1 - ratio) * cheap, (1 - ratio) ** 2 * cheap


def taught(space: Space, **changes: Any) -> tuple[Proposer, Archive]:
    """A proposer that saw every recipe of the space but those with relu, and an empty archive."""
    encoder = Encoder(space)
    predictor = Predictor(encoder, seed=0)
    for tenth in range(1, 10):
        for epochs in (10, 40):
            for leaf in space.leaves(recipe(tenth / 10, epochs=epochs)):
                accuracy, latency, size = truth(leaf)
                predictor.learn_costs(leaf, latency=latency, size=size)
                predictor.learn_accuracy(leaf, accuracy)
    return Proposer(space, encoder, predictor, ("accuracy", "latency"), **changes), Archive(("accuracy", "latency"))


def choose(proposer: Proposer, *arguments: Any, **named: Any) -> int | None:
    chosen = proposer.choose(*arguments, **named)
    return None if chosen is None else chosen.index


def test_what_breaks_a_limit_is_dropped_and_counted(space: Space) -> None:
    proposer, archive = taught(space)
    limits = Limits(latency=0.16)  # int8 needs a ratio of 0.7
    recipes = [recipe(0.2), recipe(0.5), recipe(0.7)]
    assert choose(proposer, recipes, archive, [], limits, 0.6) == 2
    assert proposer.dropped == {"seen": 3, "over a limit": 2}
    assert choose(proposer, recipes[:2], archive, [], limits, 0.6) is None


def test_what_cannot_join_the_front_is_dropped(space: Space) -> None:
    proposer, archive = taught(space)
    archive.add(make_record(Recipe(image_size=64), accuracy=0.7, latency=0.2))  # as good as anything is known to be
    recipes = [recipe(0.2), recipe(0.8)]  # int8: latency 0.4 and 0.1
    assert choose(proposer, recipes, archive, [], Limits(), reachable=0.7) == 1
    assert proposer.dropped["cannot join the front"] == 1
    assert choose(proposer, recipes[:1], archive, [], Limits(), reachable=0.71) == 0  # more could be reachable


def test_the_choice_is_the_largest_growth_of_the_hypervolume(space: Space) -> None:
    """With nothing to doubt, by trying every one: the volume that all leaves of the trunk add."""
    proposer, archive = taught(space, cost_power=0.0)
    for ratio, tag in ((0.3, "a"), (0.9, "b")):
        accuracy, latency, size = truth(space.leaves(recipe(ratio))[1])
        archive.add(make_record(recipe(ratio), accuracy=accuracy, latency=latency, size=size, record_id=tag))
    recipes = [recipe(tenth / 10) for tenth in range(1, 10)]

    def grown(own: Recipe) -> float:
        points = [entry.losses for entry in archive.front]
        new = [(-accuracy, latency) for accuracy, latency, _ in map(truth, space.leaves(own))]
        return hypervolume(points + new, [0.0, 1.0])

    best = max(range(len(recipes)), key=lambda index: grown(recipes[index]))
    assert choose(proposer, recipes, archive, [], Limits(), 0.6) == best


def test_a_choice_has_to_be_worth_more_than_the_best_other_one(space: Space) -> None:
    """Everything is known here, so hoped for is expected: what has to be reached is the second largest growth."""
    proposer, archive = taught(space, cost_power=0.0)
    archive.add(make_record(recipe(0.5), accuracy=0.4, latency=0.2))
    recipes = [recipe(tenth / 10) for tenth in range(1, 10)]
    chosen = proposer.choose(recipes, archive, [], Limits(), 0.6)
    assert chosen is not None
    before = [(-0.4, 0.2)]
    grown = sorted(
        hypervolume(before + [(-a, t) for a, t, _ in map(truth, space.leaves(own))], [0.0, 1.0]) for own in recipes
    )
    assert chosen.expected.least == pytest.approx(grown[-2] - hypervolume(before, [0.0, 1.0]), rel=0.05)
    known = [truth(leaf)[1:] for leaf in space.leaves(recipes[chosen.index])]
    assert why_not_worth(known, chosen.expected, ("accuracy", "latency")) is None
    slower = [(latency * 1.3, size) for latency, size in known]
    assert why_not_worth(slower, chosen.expected, ("accuracy", "latency")) is not None


def test_the_gain_is_divided_by_its_epochs(space: Space) -> None:
    recipes = [recipe(0.5, epochs=40), recipe(0.5, epochs=10)]
    proposer, archive = taught(space)
    assert choose(proposer, recipes, archive, [], Limits(), 0.6) == 1
    proposer, archive = taught(space, cost_power=0.0)
    assert choose(proposer, recipes, archive, [], Limits(), 0.6) == 0  # equal gains: the first


def test_what_is_in_flight_counts_as_if_it_had_ended(space: Space) -> None:
    proposer, archive = taught(space)
    recipes = [recipe(tenth / 10) for tenth in range(1, 10)]
    first = choose(proposer, recipes, archive, [], Limits(), 0.6)
    assert first is not None
    second = choose(proposer, recipes, archive, proposer.expect([recipes[first]]), Limits(), 0.6)
    third = choose(proposer, recipes, archive, proposer.expect([recipes[first], recipes[second or 0]]), Limits(), 0.6)
    assert len({first, second, third}) == 3


def test_a_large_front_is_thinned_evenly() -> None:
    known = np.random.default_rng(0).permutation(np.linspace(0, 1, 500)).reshape(250, 2)
    small, every = np.arange(60), np.arange(250)
    assert thinned(small, known).tolist() == small.tolist()
    kept = thinned(every, known)
    assert len(set(kept.tolist())) == 60
    latencies = np.sort(known[:, 0])
    places = latencies.searchsorted(known[kept, 0])
    assert places[0] == 0
    assert places[-1] == 249
    assert set(np.diff(places)) <= {4, 5}


def test_limits_are_given_in_ratios_to_the_baseline() -> None:
    constraints = Constraints(max_accuracy_drop=0.02, max_latency_ratio=0.5, max_latency_ms=4, max_size_mb=3)
    limits = Limits.of(constraints, accuracy=0.6, latency_ms=10.0, size_mb=12.0)
    assert (limits.latency, limits.size, limits.accuracy) == pytest.approx((0.4, 0.25, 0.58))
    assert Limits.of(Constraints(), accuracy=0.6, latency_ms=10.0, size_mb=12.0) == Limits()


@pytest.fixture(scope="module")
def recipes_of_space() -> list[Recipe]:
    space, random = parse_space(SPACE, name="test", image_size=64), Random(0)
    return [draw(space, random) for _ in range(40)]


Values = st.tuples(
    st.integers(0, 5), st.integers(1, 5), st.sampled_from(["complete", "complete", "stopped", "screened"])
)


@settings(max_examples=60)
@given(values=st.lists(Values, min_size=1, max_size=30))
def test_no_dominated_or_unfinished_record_is_ever_in_the_archive(recipes_of_space: list[Recipe], values: list) -> None:
    archive = Archive(("accuracy", "latency"))
    seen: list[tuple[float, float]] = []
    for number, (accuracy, latency, state) in enumerate(values):
        record = make_record(
            recipes_of_space[number],
            accuracy=accuracy / 10,
            latency=latency / 10,
            state=state,
            record_id=str(number),
        )
        archive.add(record)
        if state == "complete":
            seen.append((-accuracy / 10, latency / 10))
        front = [entry.losses for entry in archive.front]
        assert all(entry.record.state == "complete" for entry in archive.front)
        assert not front or non_dominated(front).all()
        expected = {point for point, kept in zip(seen, non_dominated(seen) if seen else [], strict=True) if kept}
        assert set(front) == expected
        assert archive.hypervolume() == pytest.approx(hypervolume(seen, [0.0, 1.0]) if seen else 0.0)
