"""The witness: which walks it takes for calm, and that a real one notices others at work in the memory."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from search.measure.witness import REST, ROOM, STEPS, Walk, Witness


def test_a_walk_is_calm_that_is_about_as_fast_as_the_fastest() -> None:
    walks = cycle([1.0, 1.05, 1.3, 1.0, 1.2])
    witness = Witness(lambda: next(walks))
    looks = [witness.look() for _ in range(100)]
    assert witness.calm(looks).tolist() == [look < 1 + ROOM for look in looks]
    assert np.quantile(looks, REST) == 1.0


def test_rest_is_what_was_seen_before_too() -> None:
    """A disturbance that lasts through a whole measurement."""
    now = 1.0
    witness = Witness(lambda: now)
    for _ in range(50):
        witness.look()
    now = 1.2
    assert not any(witness.calm([witness.look() for _ in range(200)]))


def test_one_lucky_walk_is_not_rest() -> None:
    walks = iter([0.5] + [1.0] * 99)
    witness = Witness(lambda: next(walks))
    assert witness.calm([witness.look() for _ in range(100)]).all()


def test_a_real_walk_takes_some_milliseconds_of_cpu_time() -> None:
    walk = Walk()
    times = [walk() for _ in range(10)]
    assert 1e-6 * STEPS < min(times) < 1e-4 * STEPS  # of a nanosecond to a tenth of a microsecond for each step
