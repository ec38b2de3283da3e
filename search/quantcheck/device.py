"""Whether the processor has instructions for 8-bit integers, and whether the file is faster for being quantized."""

from __future__ import annotations

from collections.abc import Collection

from search.measure.host import describe_int8, has_fast_int8
from search.measure.latency import Latency
from search.quantcheck.finding import Finding


def host_findings(instruction_sets: Collection[str], *, integer_layers: int) -> list[Finding]:
    """A finding if a file computes in integers on a processor that is slow at it.

    ``instruction_sets`` are as in ``HostInfo``; an empty one says that they are not known.
    """
    if not integer_layers or not instruction_sets or has_fast_int8(instruction_sets):
        return []
    return [
        Finding(
            code="no_int8_instructions",
            text=f"The host has no fast instructions for 8-bit integers ({describe_int8(instruction_sets)}).",
            advice="Measure latency and accuracy on the device that will run the model. If that is this one, compare "
            "with the float file: weight-only precisions keep the small file and compute in float, and reduce_range of "
            "quantize_static keeps sums from saturating.",
            numbers={"integer_layers": integer_layers},
        )
    ]


def latency_findings(ratio: float, low: float) -> list[Finding]:
    """A finding if the quantized file takes longer than its float file.

    Args:
        ratio: of the latencies, quantized over float.
        low: its lower bound.
    """
    if low <= 1:
        return []
    return [
        Finding(
            code="slower_than_float",
            text=f"The quantized file takes {ratio:.2f} times as long as its float file.",
            advice="If no other finding says why, layers are too small or too thin (depthwise, grouped) for 8-bit "
            "kernels to pay: use the float file, or weight-only precisions for their size.",
            numbers={"latency_ratio": ratio, "latency_ratio_low": low},
        )
    ]


def ratio_of(quantized: Latency, float_: Latency) -> tuple[float, float]:
    """Ratio and lower bound of two latencies that were each measured against one baseline on one host."""
    return quantized.ratio / float_.ratio, quantized.ratio_low / float_.ratio_high
