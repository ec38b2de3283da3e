"""Learning rates and averages against closed formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.stages.schedules import SCHEDULES, ema_decay

EPOCHS = 20


def test_a_line_and_a_cosine_fall_to_a_hundredth() -> None:
    for epoch in range(EPOCHS + 1):
        share = epoch / EPOCHS
        assert SCHEDULES["linear"](EPOCHS)(epoch) == pytest.approx(1 - 0.99 * share)
        assert SCHEDULES["cosine"](EPOCHS)(epoch) == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


def test_one_cycle_rises_from_a_25th_over_30_percent_and_falls_to_a_hundredth() -> None:
    own = SCHEDULES["one_cycle"](EPOCHS)
    for epoch in range(EPOCHS + 1):
        if epoch < 6:
            expected = 0.04 + 0.96 * (1 - math.cos(math.pi * epoch / 6)) / 2
        else:
            expected = 0.01 + 0.99 * (1 + math.cos(math.pi * (epoch - 6) / 14)) / 2
        assert own(epoch) == pytest.approx(expected)
    assert (own(0), own(6)) == (0.04, 1.0)


def averaged(name: str, values: list[float], epoch_steps: int) -> float:
    decay, average = ema_decay(name, epoch_steps), values[0]
    for update, value in enumerate(values[1:], start=1):
        average = decay(update) * average + (1 - decay(update)) * value
    return average


def test_an_average_over_an_epoch_is_even_at_first_and_then_exponential() -> None:
    values = list(np.random.default_rng(0).normal(size=31))
    assert averaged("epoch", values[:11], 10) == pytest.approx(np.mean(values[1:11]))
    expected = float(np.mean(values[1:11]))
    for value in values[11:]:
        expected = 0.9 * expected + 0.1 * value
    assert averaged("epoch", values, 10) == pytest.approx(expected)


def test_no_average_is_the_last_value_and_ultralytics_own_hardly_averages_at_first() -> None:
    values = list(np.random.default_rng(1).normal(size=31))
    assert averaged("none", values, 10) == values[-1]
    assert ema_decay("ultralytics", 10)(100) == pytest.approx(0.9999 * (1 - math.exp(-0.05)))
    assert abs(averaged("ultralytics", values, 10) - values[-1]) < 0.05
