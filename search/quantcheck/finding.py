"""One thing that is wrong with a quantized file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Code = Literal[
    "unfused",  # layers quantized in the file that the runtime computes in float
    "rounded_at_load",  # layers in float in the file that the runtime rounds to 8 bits
    "float_between",  # operators without an 8-bit kernel between quantized layers
    "collapse",  # accuracy or answers are lost, and where
    "no_int8_instructions",
    "slower_than_float",
    "float_weights",
    "large_scales",
    "not_compact",
    "hardly_smaller",
]
SHOWN = 4  # names of layers in a sentence; ``Finding.layers`` has all


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong (``text``) and what to do about it (``advice``), each one or two sentences.

    ``layers`` are the names of the nodes it is about, in the order of the graph or the worst first; ``numbers`` the
    figures of the text, in bytes, decibels, shares from 0 to 1, or the unit that the name ends in.
    """

    code: Code
    text: str
    advice: str
    layers: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def sentence(self) -> str:
        """Both, for people."""
        return f"{self.text} {self.advice}"


def count(number: int, name: str) -> str:
    """A number of things in words, such as 1 layer and 2 layers."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
