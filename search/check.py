"""Whether a new study beats a champion: for a nightly job, which deploys what is better and nothing else.

Records of two studies are ratios to two baselines, measured at two times. So the files themselves are timed here and
now, the new one in turn with the champion's, and the interval has to keep the margin, not only its middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.measure.latency import Latency
from search.results import Member, choose, open_study, summary

Measure = Callable[[Path, Path], Latency]  # (new file, champion's file) to the paired measurement


@dataclass(frozen=True, kw_only=True)
class Margins:
    """What a new model has to gain over the champion; negative margins allow a loss.

    ``accuracy`` is a difference (0.01 is a point), ``latency`` and ``size`` are shares (0.1: a tenth less).
    """

    accuracy: float = 0.0
    latency: float = 0.0
    size: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``beaten`` is what matters; ``reasons`` has a sentence for each member of the new front that was looked at."""

    beaten: bool
    champion: Member
    winner: Member | None = None
    latency_ratio: float | None = None
    latency_ratio_ci: tuple[float, float] | None = None
    reasons: list[str] = field(default_factory=list)


def check(folder: Path, champion_folder: Path, pick: str, margins: Margins, measure: Measure) -> Verdict:
    """Looks for a member of the front of ``folder`` that beats the champion by all margins; the fastest such.

    Args:
        folder: the new study.
        champion_folder: the study whose ``pick`` is in use.
        pick: a name as ``front --pick`` has it.
        margins: what has to be gained.
        measure: times two files in turn.

    Raises:
        UserError: the studies are of other data, for other targets or metrics, or a file is not there.
    """
    new, old = _opened(folder), _opened(champion_folder)
    _check_alike(folder, champion_folder, new, old)
    champion = choose(old, pick)
    reasons: list[str] = []
    for member in sorted(new["front"], key=lambda m: m["latency_ratio"]):
        name = member["record_id"]
        if reason := _falls_short(member, champion, margins):
            reasons.append(f"{name}: {reason}")
            continue
        found = measure(_file(folder, member), _file(champion_folder, champion))
        ci = (found.ratio_low, found.ratio_high)
        told = f"latency ×{found.ratio:.3f} ({ci[0]:.3f}-{ci[1]:.3f}) of the champion's"
        if found.ratio_high <= 1 - margins.latency:
            reasons.append(f"{name}: {told}: beats it by all margins")
            return Verdict(
                beaten=True,
                champion=champion,
                winner=member,
                latency_ratio=found.ratio,
                latency_ratio_ci=ci,
                reasons=reasons,
            )
        reasons.append(f"{name}: {told}, and ×{1 - margins.latency:.3f} was asked for")
    return Verdict(beaten=False, champion=champion, reasons=reasons or ["the new front is empty"])


def _opened(folder: Path) -> dict[str, Any]:
    config, store = open_study(folder)
    data = folder / "data.json"
    digest = json.loads(data.read_text(encoding="utf-8"))["digest"] if data.is_file() else None
    return summary(config, store, folder) | {"data": digest, "target": config.target.name}


def _check_alike(folder: Path, champion: Path, new: dict[str, Any], old: dict[str, Any]) -> None:
    for key, noun in (("data", "data"), ("metric", "measure of accuracy"), ("target", "target")):
        if new[key] is None or new[key] != old[key]:
            raise UserError(
                f"check: {folder} and {champion} are not of the same {noun} ({new[key]}, {old[key]}), so neither can "
                "beat the other; run the champion's recipe on the new data with the apply command, or search there anew"
            )


def _falls_short(member: Member, champion: Member, margins: Margins) -> str:
    gained = member["accuracy"] - champion["accuracy"]
    if gained < margins.accuracy - 1e-9:
        return f"accuracy {member['accuracy']:.4f}, {gained:+.4f}, and {margins.accuracy:+.4f} was asked for"
    size = member["size_bytes"] / champion["size_bytes"]
    if size > 1 - margins.size + 1e-9:
        return f"size ×{size:.3f} of the champion's, and ×{1 - margins.size:.3f} was asked for"
    return ""


def _file(folder: Path, member: Member) -> Path:
    path = folder / member["artifact"]
    if not path.exists():
        raise UserError(f"check: there is no {path}; both studies need their files, to be timed side by side")
    return path
