"""Few recipes in which every two techniques that can be together are together once: a greedy covering array.

As AETG does it (Cohen et al. 1997, doi:10.1109/32.605761), in two steps, since training is what costs: sets of
techniques that decide the trunk first, then leaves for each of these sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

Pair = frozenset[str]


@dataclass
class Trunk:
    """Techniques of one trained trunk, and the sets of leaf techniques that are applied to it."""

    names: tuple[str, ...]
    leaves: list[tuple[str, ...]] = field(default_factory=list)

    def pairs(self) -> set[Pair]:
        """The pairs that its recipes have."""
        recipes = [self.names, *((*self.names, *leaf) for leaf in self.leaves)]
        return {frozenset(pair) for names in recipes for pair in combinations(names, 2)}


def cover(
    trunk: Sequence[str], leaf: Sequence[str], allowed: set[Pair], works: Callable[[Sequence[str]], bool]
) -> list[Trunk]:
    """Trunks with leaves whose recipes have all of the ``allowed`` pairs.

    Args:
        trunk: techniques that decide the weights.
        leaf: techniques that are applied to trained weights.
        allowed: the pairs to cover; what is not in it is never put together.
        works: whether techniques that are allowed in pairs are also accepted all together.
    """
    left = {
        name: {other for other in (*trunk, *leaf) if frozenset((name, other)) in allowed} for name in (*trunk, *leaf)
    }
    trunks: list[Trunk] = []
    while any(left[name] & set(trunk) for name in trunk):
        first = max(trunk, key=lambda name: len(left[name] & set(trunk)))
        names = _grown((first,), trunk, left, allowed, works)
        assert len(names) > 1, f"{first} goes with none of {left[first]}"
        _mark(names, left)
        trunks.append(Trunk(names))
    while any(left[name] for name in leaf):
        grown = [(one, _grown(one.names, leaf, left, allowed, works)) for one in trunks]
        one, names = max(grown, key=lambda found: _gain(found[1], left))
        new = names[len(one.names) :]
        if not new:  # no trunk takes what is left: give the first of it one of its own
            alone = next(other for name in leaf for other in left[name] if other in trunk)
            trunks.append(Trunk((alone,)))
            continue
        _mark(names, left)
        one.leaves.append(new)
    return trunks


def _grown(
    start: tuple[str, ...],
    candidates: Iterable[str],
    left: Mapping[str, set[str]],
    allowed: set[Pair],
    works: Callable[[Sequence[str]], bool],
) -> tuple[str, ...]:
    """``start`` with candidates added, each time the one that covers most, while any covers something."""
    names = start
    open_ = [name for name in candidates if name not in start]
    while True:
        open_ = [name for name in open_ if all(frozenset((name, other)) in allowed for other in names)]
        gains = {name: len(left[name] & set(names)) for name in open_}
        for name in sorted((name for name in open_ if gains[name]), key=lambda name: -gains[name]):
            if works((*names, name)):
                names = (*names, name)
                open_.remove(name)
                break
            open_.remove(name)
        else:
            return names


def _gain(names: Sequence[str], left: Mapping[str, set[str]]) -> int:
    return sum(len(left[name] & set(names)) for name in names)


def _mark(names: Sequence[str], left: Mapping[str, set[str]]) -> None:
    for name in names:
        left[name].difference_update(names)
