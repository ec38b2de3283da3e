"""A real study in a pseudo-terminal of 80 × 24, and silent; in a pipe it is in test_study.py."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path

from search.live.snapshot import read_snapshot
from tests.integration.test_study import ROOT, make_study, search
from tests.terminal import Terminal, given_back

SPACE = """
image_size: 64
activation: [silu, relu]
finetune: {kind: train, epochs: 9}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""
ENVIRONMENT = {**os.environ, "TERM": "xterm-256color"}
ENVIRONMENT.pop("CI", None)


def command(*arguments: object) -> list[object]:
    return [sys.executable, "-m", "search", *arguments]


def test_a_study_is_seen_in_a_terminal_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = make_study(tmp_path, budget={"trials": 1}, engine={"starts": False})
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")

    cut = Terminal(command("run", study, "--out", out), cwd=ROOT, env=ENVIRONMENT)
    cut.until(lambda text: "preparing the data and the baseline" in text, 120)
    cut.type(b"\x03")
    assert cut.finish(120) != 0
    assert given_back(cut.raw)
    stopped = read_snapshot(out)
    assert stopped is not None and stopped.state == "stopped"

    shown = Terminal(command("resume", out), cwd=ROOT, env=ENVIRONMENT)
    for words in ("searching", "trials 0/1, 1 under way", "mAP50-95", "★", "trials 1/1", "measuring the front"):
        shown.until(lambda text, words=words: words in text, 300)
    assert shown.finish(300) == 0
    assert given_back(shown.raw)
    assert "python -m search front" in shown.text
    text = "\n".join(line for frame in shown.frames for line in frame)
    assert re.search(rf"^{socket.gethostname()[:13]}.* train [1-9]/9 +0:\d\d$", text, re.M)
    assert re.search(r" measure +0:\d\d$", text, re.M)
    view = [frame for frame in shown.frames if any("── log" in line for line in frame)]
    whole = [frame for frame in view if "tiny" in frame[0]]
    assert len(whole) >= 10
    assert all(sum("── log" in line for line in frame) == 1 for frame in whole)  # nothing has scrolled
    ended = read_snapshot(out)
    assert ended is not None and (ended.state, ended.trials, ended.running) == ("ended", 1, ())
    assert any(line.split()[1:3] == ["trial", "1/1"] for line in ended.log)

    quiet = search("finish", out, "--quiet")
    front = json.loads((out / "front.json").read_text(encoding="utf-8"))["front"]
    [line] = quiet.stdout.splitlines()
    assert line.startswith(f"{out}: {len(front)} on the front; recommended ")
    assert quiet.stderr == ""
