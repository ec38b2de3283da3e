"""What one number of latency does not tell of a model: its memory, its throughput, and its time from picture to answer.

``Apart.profile`` has it done in a child process, which may have no more than numpy and the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.measure.batch_check import why_no_batch
from search.measure.end_to_end import EndToEnd, measure_end_to_end
from search.measure.latency import last_cores, pinned
from search.measure.memory import peak_memory
from search.measure.throughput import Throughput, measure_throughput
from search.runtimes.session import Runtime

BUSY = 0.1  # share of waiting from which on a throughput is doubted


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A candidate's figures beside its baseline's; those in pairs are the candidate's and the baseline's.

    ``memory`` is in MB, see ``peak_memory``. ``missing`` says why one of ``throughput_batch`` and ``end_to_end`` is
    None, by its name.
    """

    memory: tuple[float | None, float | None]
    throughput: Throughput
    throughput_batch: Throughput | None
    throughput_streams: Throughput
    end_to_end: EndToEnd | None
    batch: int
    streams: int
    missing: dict[str, str]

    def flat(self) -> dict[str, Any]:
        """As one flat object for the command line; docs/measuring.md explains the keys."""
        ours, theirs = self.memory
        result = {
            "peak_memory_mb": ours,
            "against_peak_memory_mb": theirs,
            "peak_memory_ratio": ours / theirs if ours and theirs else None,
            **_flat("throughput_batch1", self.throughput),
            "batch": self.batch,
            **_flat("throughput_batchN", self.throughput_batch),
            "throughput_batchN_missing": self.missing.get("throughput_batch"),
            "streams": self.streams,
            **_flat("throughput_streams", self.throughput_streams),
        }
        return result | _flat_end(self.end_to_end) | {"end_to_end_missing": self.missing.get("end_to_end")}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why throughputs should be taken again."""
        all_of = {
            "batch of 1": self.throughput,
            f"batch of {self.batch}": self.throughput_batch,
            f"{self.streams} streams": self.throughput_streams,
        }
        return tuple(
            f"throughput, {name}: the cores were with other work for {found.waiting:.0%} of the time"
            for name, found in all_of.items()
            if found and found.waiting and found.waiting > BUSY
        )


def profile_model(
    candidate: Path,
    baseline: Path,
    *,
    runtime: Runtime,
    batch: int,
    batched: tuple[Path, Path] | str,
    streams: int,
    images: Sequence[NDArray[np.uint8]],
    cores: Sequence[int] | None = None,
) -> Profile:
    """Measures two files on one runtime; in turn, wherever time counts.

    Args:
        candidate: the file in question.
        baseline: the file to compare with.
        runtime: what runs them.
        batch: pictures in one run.
        batched: both files for so many pictures, or why there are none.
        streams: sessions at once.
        images: (H, W, 3) bytes each, for the time from picture to answer.
        cores: where it runs; if not given, the last ones for one session, and all for several at once.

    Raises:
        MeasurementError: a file is missing, or the runtime refuses it.
    """
    missing: dict[str, str] = {}
    memory = peak_memory(candidate, runtime), peak_memory(baseline, runtime)
    with pinned(last_cores(runtime.threads) if cores is None else cores):
        single = measure_throughput(candidate, baseline, runtime=runtime)
        several = whole = None
        if why := _why_no_batch((candidate, baseline), batched, batch, runtime):
            missing["throughput_batch"] = why
        else:
            several = measure_throughput(*map(Path, batched), runtime=runtime, batch=batch)
        try:
            whole = measure_end_to_end(candidate, baseline, images, runtime=runtime)
        except MeasurementError as error:
            missing["end_to_end"] = str(error)
    with pinned(cores):
        at_once = measure_throughput(candidate, baseline, runtime=runtime, streams=streams)
    return Profile(
        memory=memory,
        throughput=single,
        throughput_batch=several,
        throughput_streams=at_once,
        end_to_end=whole,
        batch=batch,
        streams=streams,
        missing=missing,
    )


def _why_no_batch(singles: tuple[Path, Path], batched: tuple[Path, Path] | str, batch: int, runtime: Runtime) -> str:
    """Why the batched files cannot be timed; empty if they answer as the single ones do."""
    if isinstance(batched, str):
        return batched
    pairs = zip(singles, map(Path, batched), strict=True)
    return next(filter(None, (why_no_batch(single, several, batch, runtime) for single, several in pairs)), "")


def profile_from(content: dict[str, Any]) -> Profile:
    """A profile from ``asdict``, by way of JSON."""
    fields: dict[str, Any] = {**content, "memory": tuple(content["memory"])}
    for name in ("throughput", "throughput_batch", "throughput_streams"):
        fields[name] = Throughput(**content[name]) if content[name] else None
    if end := content["end_to_end"]:
        fields["end_to_end"] = EndToEnd(**end)
    return Profile(**fields)


def _flat(name: str, found: Throughput | None) -> dict[str, Any]:
    ratio = found.ratio if found else None
    return {
        name: found and found.rate,
        f"against_{name}": found and found.against_rate,
        f"{name}_ratio": ratio and ratio[0],
        f"{name}_ratio_ci": ratio and list(ratio[1:]),
        f"{name}_waiting": found and found.waiting,
    }


def _flat_end(found: EndToEnd | None) -> dict[str, Any]:
    if found is None:
        return {"end_to_end_ms_p50": None}
    parts = {"end_to_end": found.whole, "preprocess": found.before, "model": found.model, "postprocess": found.after}
    times = {
        f"{name}_ms_{part}": value
        for name, pair in parts.items()
        for part, value in zip(("p50", "p95"), pair, strict=True)
    }
    return times | {
        "end_to_end_ratio": found.ratio[0],
        "end_to_end_ratio_ci": list(found.ratio[1:]),
        "end_to_end_clock": found.clock,
        "end_to_end_task": found.task,
        "end_to_end_images": found.images,
        "end_to_end_found": found.boxes,
        "against_end_to_end_found": found.against_boxes,
    }
