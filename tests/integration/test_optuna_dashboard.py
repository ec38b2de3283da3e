"""optuna-dashboard, as docs/live.md has it, on the storage file of a study."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

DASHBOARD = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "live.md"
pytestmark = pytest.mark.skipif(DASHBOARD is None, reason="optuna-dashboard is not installed: make setup")


def answer(url: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as found:
                return json.load(found)
        except urllib.error.URLError:
            assert process.poll() is None and time.monotonic() < end, "the dashboard does not answer"
            time.sleep(0.2)


def test_the_dashboard_shows_the_study_of_a_storage_file(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="cats", directions=["maximize", "minimize"])
    for accuracy, latency in ((0.5, 0.3), (0.6, 0.7)):
        trial = study.ask()
        trial.suggest_float("prune.ratio", 0, 1)
        study.tell(trial, [accuracy, latency])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    [words] = re.findall(r"^ {4}optuna-dashboard (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    told = words.replace("results/my-model/optuna.log", str(path)).split()
    process = subprocess.Popen(
        [str(DASHBOARD), *told, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        [known] = answer(f"http://127.0.0.1:{port}/api/studies", process)["study_summaries"]
        assert (known["study_name"], known["directions"]) == ("cats", ["maximize", "minimize"])
        detail = answer(f"http://127.0.0.1:{port}/api/studies/{known['study_id']}", process)
        assert [trial["values"] for trial in detail["trials"]] == [[0.5, 0.3], [0.6, 0.7]]
    finally:
        process.terminate()
        process.wait(30)
