"""Sends pictures to a service again and again, and tells how fast and how surely it answers.

    python load.py http://127.0.0.1:8000 [--seconds 10] [--clients 8] [--picture FILE] [--json]

Each client has a connection of its own and sends its next picture when the last one is answered. Exit code 1 if
a request was answered by another status than 200 or not at all, 2 for errors.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SAMPLE = Path(__file__).resolve().parent / "sample.png"


@dataclass(kw_only=True)
class Tally:
    """Of one client: how often each status came back, what went wrong instead, and times in ms of what was answered."""

    statuses: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--picture", type=Path, default=SAMPLE)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    given = parser.parse_args()
    if urlsplit(given.url).scheme != "http":
        parser.error(f"{given.url} is no http:// address")
    try:
        body = given.picture.read_bytes()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    kind = guess_type(given.picture.name)[0] or "application/octet-stream"
    result = load(given.url, body, kind, seconds=given.seconds, clients=max(1, given.clients))
    print(json.dumps(result) if given.json else "\n".join(f"{name:20} {value}" for name, value in result.items()))
    return 0 if set(result["statuses"]) == {"200"} else 1


def load(url: str, body: bytes, kind: str, *, seconds: float, clients: int) -> dict[str, Any]:
    """Requests a second and the times in ms from request to answer, of those that got 200."""
    end = threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        running = [pool.submit(client, url, body, kind, end) for _ in range(clients)]
        end.wait(seconds)
        end.set()
        tallies = [one.result() for one in running]
        spent = time.perf_counter() - start
    statuses = sum((tally.statuses for tally in tallies), Counter[str]())
    times = sorted(value for tally in tallies for value in tally.times)
    result: dict[str, Any] = {"clients": clients, "seconds": round(spent, 3), "statuses": dict(statuses)}
    result["requests_per_s"] = round(len(times) / spent, 2)
    for share in (50, 95, 99):
        place = min(len(times) - 1, round(share / 100 * len(times)))
        result[f"ms_p{share}"] = round(times[place], 3) if times else None
    return result


def client(url: str, body: bytes, kind: str, end: threading.Event) -> Tally:
    """Sends ``body`` until ``end`` is set, or the service is no longer there."""
    address, tally = urlsplit(url), Tally()
    connection = HTTPConnection(address.hostname or "", address.port or 80, timeout=60)
    while not end.is_set():
        start = time.perf_counter()
        try:
            connection.request("POST", f"{address.path.rstrip('/')}/predict", body, {"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
        except ConnectionRefusedError:
            tally.statuses["refused"] += 1
            break
        except (OSError, HTTPException) as error:
            tally.statuses[type(error).__name__] += 1
            connection.close()
            continue
        tally.statuses[str(answer.status)] += 1
        if answer.status == 200:
            tally.times.append(1000 * (time.perf_counter() - start))
        else:
            end.wait(0.05)  # a service that is busy is not helped by being asked at once
    connection.close()
    return tally


if __name__ == "__main__":
    sys.exit(main())
