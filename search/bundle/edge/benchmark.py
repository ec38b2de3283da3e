"""Times the model of this bundle here, and says whether its answer to the sample picture is the expected one.

    python benchmark.py [--runs N] [--json]

Exit code 1 if the answer is another, 2 for errors. ``cpu_ms`` is the CPU time of the thread that computes, which other
work on the machine hardly changes; with several threads it says nothing and is left out. Times here are of one picture;
``card_ms_p50`` is null if the card's are of several at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model import Model

WARM_UP = 20


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="timed runs [default: 200]")
    parser.add_argument("--threads", type=int, help="CPU threads [default: as it was measured]")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    given = parser.parse_args()
    try:
        from model import Model, Refused
    except ImportError as error:
        here = Path(__file__).resolve().parent
        print(f"error: {error}; python -m pip install -r {here / 'requirements.txt'}", file=sys.stderr)
        return 2
    try:
        result = measured(Model(threads=given.threads), max(1, given.runs))
    except Refused as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(json.dumps(result) if given.json else "\n".join(f"{name:18} {value}" for name, value in result.items()))
    return 0 if result["answers_as_expected"] else 1


def measured(model: Model, runs: int) -> dict[str, Any]:
    """Times in ms of the model alone and from the sample picture to its answer, and how far that answer is off."""
    import numpy as np
    from frames import frames
    from model import FOLDER

    [frame] = frames(FOLDER / model.about["sample"]["image"])
    apart = model.sample_differences(model.answer(frame.pixels))
    planes = np.random.default_rng(0).random((1, 3, model.height, model.width), dtype=np.float32)
    alone = _times(lambda: model.run(planes), runs)
    whole = _times(lambda: model.answer(frame.pixels), max(1, runs // 4))
    card = model.about["measured"]
    result: dict[str, Any] = {"runs": runs, "threads": model.threads}
    for name, times in (("model", alone), ("whole", whole)):
        p50, p95 = np.percentile(times[:, 0], [50, 95])
        result |= {f"{name}_ms_p50": round(float(p50), 4), f"{name}_ms_p95": round(float(p95), 4)}
        if model.threads == 1:
            result[f"{name}_cpu_ms_p50"] = round(float(np.median(times[:, 1])), 4)
    return result | {
        "card_ms_p50": round(card["latency_ms_p50"], 4) if card["latency_batch"] == 1 else None,
        "answers_as_expected": model.as_expected(apart),
        "pixels_apart": None if apart is None else apart[0],
        "score_apart": None if apart is None else apart[1],
    }


def _times(run: Any, runs: int) -> Any:
    """Milliseconds by the wall and by the CPU clock of this thread: (runs, 2)."""
    import numpy as np

    for _ in range(WARM_UP):
        run()
    times: list[tuple[int, int]] = []
    for _ in range(runs):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        run()
        cpu_end, wall_end = time.thread_time_ns(), time.perf_counter_ns()
        times.append((wall_end - wall, cpu_end - cpu))
    return np.array(times) / 1e6


if __name__ == "__main__":
    sys.exit(main())
