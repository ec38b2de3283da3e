"""The values that one sampler parameter may take: a constant, a choice, or a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from spaces.content import is_list, is_mapping
from spaces.params import Value


class SamplerTrial(Protocol):
    """What a space needs of Optuna's trial: the three ``suggest_*`` calls."""

    def suggest_categorical(self, name: str, choices: tuple[Value, ...]) -> Any:
        """One of ``choices``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``, both included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values; a single value is a constant, which no sampler is asked about."""

    values: tuple[Value, ...]

    def contains(self, value: Value) -> bool:
        """Whether ``value`` is one of them (``True`` is not ``1``)."""
        return any(value == own and isinstance(value, bool) == isinstance(own, bool) for own in self.values)

    def nearest(self, value: Value) -> Value:
        """``value`` if it is one of them, the closest number among them, or else the first."""
        if self.contains(value) or isinstance(value, (str, bool)):
            return value if self.contains(value) else self.values[0]
        numbers = [own for own in self.values if isinstance(own, (int, float)) and not isinstance(own, bool)]
        return min(numbers, key=lambda own: abs(own - value), default=self.values[0])

    def suggest(self, trial: SamplerTrial, name: str) -> Value:
        """The trial's choice; a constant is returned without asking."""
        return self.values[0] if len(self.values) == 1 else trial.suggest_categorical(name, self.values)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole numbers if all given are whole."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def integer(self) -> bool:
        """Whether the range is of whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def contains(self, value: Value) -> bool:
        """Whether ``value`` is in the range and on its grid."""
        if isinstance(value, (str, bool)) or not self.low <= value <= self.high:
            return False
        return self.nearest(value) == value

    def nearest(self, value: Value) -> Value:
        """The closest value of the range, on its grid; the low end for what is no number."""
        if isinstance(value, (str, bool)):
            return self.low
        clipped = min(max(value, self.low), self.high)
        if self.step is not None:
            # Rounded to 12 digits, so that 0.1 + 2 * 0.1 and 0.3 are one value.
            steps = min(round((clipped - self.low) / self.step), int((self.high - self.low) / self.step + 1e-9))
            clipped = min(max(round(self.low + steps * self.step, 12), self.low), self.high)
        return round(clipped) if self.integer else float(clipped)

    def suggest(self, trial: SamplerTrial, name: str) -> Value:
        """The trial's value, moved to the grid as ``nearest`` writes it: Optuna has 0.1 + 2 * 0.1 for 0.3."""
        if self.integer:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return self.nearest(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


Domain = Choice | Range


def parse_domain(content: Any, where: str) -> Domain:
    """A domain from YAML: a scalar, a list of scalars, or ``{low, high, step, log}``.

    Raises:
        ValueError: the content is none of these; the message starts with ``where``.
    """
    if isinstance(content, (bool, int, float, str)):
        return Choice(values=(content,))
    if is_list(content) and content and all(isinstance(v, (bool, int, float, str)) for v in content):
        return Choice(values=tuple(content))
    if is_mapping(content) and {"low", "high"} <= set(content) <= {"low", "high", "step", "log"}:
        return _parse_range(content, where)
    raise ValueError(
        f"{where}: {content!r} is no domain; allowed are a value, a list of values, or {{low, high, step, log}}"
    )


def _parse_range(content: dict[str, Any], where: str) -> Range:
    low, high, step, log = content["low"], content["high"], content.get("step"), content.get("log", False)
    numbers = (low, high) if step is None else (low, high, step)
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in numbers):
        raise ValueError(f"{where}: low, high and step must be numbers, not {content!r}")
    if low > high or (step is not None and step <= 0):
        raise ValueError(f"{where}: low must not exceed high and step must be above 0, got {content!r}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"{where}: a log range needs low above 0 and takes no step, got {content!r}")
    return Range(low=low, high=high, step=step, log=bool(log))


def samples(domain: Domain) -> tuple[Value, ...]:
    """Values that show whether all of a domain is allowed: every choice; of a range its ends and one between."""
    if isinstance(domain, Choice):
        return domain.values
    step = domain.step or (1 if domain.integer else (domain.high - domain.low) / math.e)  # a whole number by no chance
    return (domain.low, domain.nearest(domain.low + step), domain.nearest(domain.high))


def middle(domain: Domain) -> Value:
    """A constant, the first choice, or the middle of a range (the geometric one on a log scale)."""
    if isinstance(domain, Choice):
        return domain.values[0]
    return domain.nearest(math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2)
