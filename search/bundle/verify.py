"""Measures a bundle on the spot and compares it with its card. Of what is in it only the model is executed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.bundle.code import code_files
from search.bundle.manifest import FILE, MODEL, SAMPLE, Manifest, Measured, read_manifest
from search.bundle.sample import pixels, read_image
from search.bundle.sums import wrong_sums
from search.errors import UserError
from search.measure.apart import Apart
from search.measure.end_to_end import open_chain
from search.measure.latency import Latency
from search.runtimes.answers import differences
from search.runtimes.session import Runtime
from search.target import DEFAULT, Target, load_target

SLOWER = 0.2  # a share of the card's milliseconds; machines are not so steady that less would be a sign
LESS_ACCURATE = 0.01  # where the card has no interval


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was compared: whether it holds, None if it cannot be told here, and why in words."""

    name: str
    holds: bool | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was compared, and the figures that were measured for it."""

    bundle: str
    holds: bool
    checks: list[Check]
    measured: dict[str, Any]


def verify_bundle(folder: Path, *, data: Path | None = None, split: str = "val", seconds: float = 30.0) -> Verdict:
    """Compares checksums, the answer to the sample picture, latency and, with ``data``, accuracy.

    Latency is of a run with as many pictures as on the card, for which the model is rewritten as it was for the study.
    If a checksum is wrong, nothing else is looked at.

    Raises:
        UserError: it is no bundle, or the data has no such split.
    """
    wrong = wrong_sums(folder) if (folder / FILE).is_file() else []
    sums = Check(name="checksums", holds=not wrong, text="; ".join(wrong) or "every file is as it was made")
    if wrong:
        return _verdict(folder, [sums], {})
    manifest = read_manifest(folder)
    card = manifest.measured
    target = load_target(DEFAULT, threads=manifest.threads, batch=card.latency_batch, seconds=seconds)
    checks = [sums, _runner(folder, manifest), _answers(folder, manifest)]
    with Apart(target) as apart:
        latency = apart.measure(folder / MODEL, baseline=folder / MODEL)
    checks.append(compare_latency(card, latency))
    measured: dict[str, Any] = {
        "latency_ms_p50": latency.p50_ms,
        "latency_ms_p95": latency.p95_ms,
        "latency_batch": latency.batch,
        "waiting": latency.waiting,
        "host": latency.host,
        "runtime": latency.runtime,
        "doubts": list(latency.doubts),
    }
    if data is not None:
        found = _accuracy(folder, manifest, data, split, target)
        measured |= {"split": split, "metric": card.metric, "accuracy": found}
        checks.append(compare_accuracy(card, found, split))
    return _verdict(folder, checks, measured)


def compare_latency(card: Measured, latency: Latency) -> Check:
    """Milliseconds beside the card's, on the same host only, each without the time in which others had the core.

    Both are of a run with as many pictures.
    """
    assert latency.batch == card.latency_batch
    here, there = latency.p50_ms * (1 - latency.waiting), card.latency_ms_p50 * (1 - card.waiting)
    if latency.host != card.host:
        text = (
            f"{here:.2f} ms on host {latency.host}; the card's {there:.2f} ms are of host {card.host}, and "
            "milliseconds of different hosts are not compared"
        )
        return Check(name="latency", holds=None, text=text)
    change = here / there - 1
    doubts = f" ({'; '.join(latency.doubts)})" if latency.doubts else ""
    text = f"{here:.2f} ms, {change:+.0%} of the card's {there:.2f} ms; at most {SLOWER:+.0%}{doubts}"
    return Check(name="latency", holds=change <= SLOWER, text=text)


def compare_accuracy(card: Measured, found: float, split: str) -> Check:
    """Accuracy beside the card's: not below its interval, which is for other images of the same kind."""
    least = card.accuracy_ci[0] if card.accuracy_ci else card.accuracy - LESS_ACCURATE
    text = f"{card.metric} {found:.3f} on {split}, the card's is {card.accuracy:.3f}; at least {least:.3f}"
    return Check(name="accuracy", holds=found >= least, text=text)


def _runner(folder: Path, manifest: Manifest) -> Check:
    """Whether the code is this version's own; another version's is no fault."""
    files = code_files(manifest.place)
    other = [name for name in files if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]]
    text = f"{', '.join(other)} not as in this version, so not looked at" if other else "the code is this version's"
    return Check(name="runner", holds=None if other else True, text=text)


def _answers(folder: Path, manifest: Manifest) -> Check:
    chain = open_chain(folder / MODEL, Runtime(threads=manifest.threads))
    if chain.task != manifest.task:
        return Check(name="answers", holds=False, text=f"the model is made to {chain.task}, not to {manifest.task}")
    found = chain.answer(pixels(read_image(folder / SAMPLE)))
    expected = np.array(manifest.sample.answers, dtype=np.float32).reshape(-1, found.shape[1])
    apart, tolerance = differences(found, expected), manifest.sample.tolerance
    if apart is None:
        text = f"{len(found)} answers to the sample picture, {len(expected)} were expected, or of other classes"
        return Check(name="answers", holds=False, text=text)
    text = (
        f"{len(found)} answers to the sample picture, off by {apart[0]:.3f} pixels and {apart[1]:.5f} of score at "
        f"most; {tolerance.pixels:g} and {tolerance.score:g} are allowed"
    )
    return Check(name="answers", holds=apart[0] <= tolerance.pixels and apart[1] <= tolerance.score, text=text)


def _accuracy(folder: Path, manifest: Manifest, data: Path, split: str, target: Target) -> float:
    from search.measure.file import accuracy_of

    found = accuracy_of(folder / MODEL, data, split, target)
    if found["metric"] != manifest.measured.metric:
        raise UserError(f"--data {data} is for {found['metric']}, and the card's is {manifest.measured.metric}")
    return found["accuracy"]


def _verdict(folder: Path, checks: list[Check], measured: dict[str, Any]) -> Verdict:
    holds = all(check.holds is not False for check in checks)
    return Verdict(bundle=str(folder), holds=holds, checks=checks, measured=measured)
