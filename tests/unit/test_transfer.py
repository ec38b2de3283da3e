"""The table of what was taken to other targets."""

from __future__ import annotations

from search.transfer import Row, table
from tests.studies import tables


def test_what_cannot_be_compared_with_the_main_target_is_left_open() -> None:
    known = Row(
        target="four-at-once",
        model="baseline",
        record_id=None,
        accuracy=0.5,
        latency_ratio=0.5,
        latency_ratio_ci=(0.4, 0.6),
        latency_ms_p50=8.0,
        latency_batch=4,
        size_bytes=2_000_000,
    )
    [[row, other]] = tables(table([known, Row(target="board", model="smallest", record_id="a", reason="too large")]))
    assert (row["latency"], row["to the main target's baseline"], row["ms"]) == ("×0.500 (0.400–0.600)", "–", "8.0")
    assert other["mAP50-95 or top-1"] == "too large"
