"""How the graph is rewritten on its way into the file."""

from __future__ import annotations

from typing import Literal

from spaces.parts.base import Part


class Export(Part):
    """Graph rewrites at export that leave the outputs as they are.

    ``fast_dfl`` computes the box distribution's expectation by one matrix product instead of a softmax. The others
    are done last, to the quantized file: ``sparse`` stores weights with many zeros as a bit mask and the values
    that are not zero; ``compact`` stores equal tensors once, shortens names and drops the metadata that nobody
    reads back.
    """

    kind: Literal["onnx"] = "onnx"
    fast_dfl: bool = True
    sparse: bool = False
    compact: bool = False
