"""How the graph is rewritten on its way into the file."""

from __future__ import annotations

from typing import Literal

from spaces.parts.base import Part


class Export(Part):
    """Graph rewrites at export that leave the outputs as they are.

    ``fast_dfl`` computes the box distribution's expectation by one matrix product instead of a softmax.
    """

    kind: Literal["onnx"] = "onnx"
    fast_dfl: bool = True
