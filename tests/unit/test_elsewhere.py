"""Several targets: each has its records, and how far two of them agree is counted pair by pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from search.elsewhere import agreement, seen_from
from search.record import BASELINE, Elsewhere, Record
from search.store import Records
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record


def record_of(ratio: float, here: tuple[float, float], there: tuple[float, float] | None) -> Record:
    """A record with its accuracy and latency on the main target, and on "phone" if it is there."""
    recipe = Recipe(image_size=64, prune=ChannelPrune(ratio=ratio))
    record = make_record(recipe, accuracy=here[0], latency=here[1])
    if there is None:
        return record.model_copy(update={"elsewhere": {"phone": Elsewhere(reason="it does not run int8")}})
    twin = make_record(recipe, accuracy=there[0], latency=there[1])
    own = Elsewhere(artifact=twin.artifact, measurement=twin.measurement)
    return record.model_copy(update={"elsewhere": {"phone": own}})


def test_records_are_seen_as_the_other_target_has_them() -> None:
    base = make_baseline()
    base = base.model_copy(update={"elsewhere": {"phone": Elsewhere(measurement=base.measurement)}})
    found = record_of(0.5, (0.5, 0.4), (0.45, 0.2))
    phone = seen_from(Records([base, found, record_of(0.25, (0.55, 0.7), None)]), "phone")
    assert list(phone.records) == [BASELINE, found.id]
    assert phone.records[found.id].values(("accuracy", "latency")) == (0.45, 0.2)
    assert phone.baseline is not None
    assert phone.baseline.measurement == base.measurement
    assert not seen_from(Records([base, found]), "toaster").records


def test_agreement_is_kendalls_tau_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((8, 4))
    records = [record_of(0.1 * (i + 1), (a, b), (c, d)) for i, (a, b, c, d) in enumerate(values.tolist())]
    main = Records([make_baseline(), *records])
    [row] = agreement({"main": main, "phone": seen_from(main, "phone")})
    assert (row["targets"], row["records"]) == (["main", "phone"], 8)
    for name, mine, theirs in (("accuracy_tau", 0, 2), ("latency_tau", 1, 3)):
        signs = [
            np.sign((values[i, mine] - values[j, mine]) * (values[i, theirs] - values[j, theirs]))
            for i, j in combinations(range(8), 2)
        ]
        assert row[name] == pytest.approx(np.mean(signs))


def test_there_is_no_agreement_on_one_record_or_equal_ones() -> None:
    one = Records([record_of(0.5, (0.5, 0.4), (0.4, 0.3))])
    [row] = agreement({"main": one, "phone": seen_from(one, "phone")})
    assert (row["records"], row["latency_tau"], row["accuracy_tau"]) == (1, None, None)
    two = Records([record_of(0.5, (0.5, 0.4), (0.4, 0.3)), record_of(0.6, (0.6, 0.5), (0.4, 0.2))])
    [row] = agreement({"main": two, "phone": seen_from(two, "phone")})
    assert (row["latency_tau"], row["accuracy_tau"]) == (-1.0, None)
