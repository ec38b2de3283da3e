"""A bundle that is served as a pipeline of two stages: the same boxes, and a stage that dies costs no service."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from search.bundle.make import make_bundle
from search.measure.end_to_end import open_chain
from search.runtimes.session import Runtime
from search.stages.export import export_onnx
from spaces.recipe import Export
from tests.bundles import make_study, picture
from tests.lively import lively_model
from tests.served import ROOT, Service, search_serve, serving
from tests.tiny import SIZE

PIXELS, SCORE = 0.05, 1e-3  # as far as the boxes of the study's own file may be off; JSON has .01 and 1e-5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "model.onnx"
    export_onnx(lively_model(), Export(), image_size=SIZE, path=path)
    study = make_study(tmp_path_factory.mktemp("study"), path, size=SIZE)
    return make_bundle(study, pick="recommended")


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with serving([*search_serve(bundle), "--split", 2]) as found:
        yield found
        pids = stages(found)
        found.process.send_signal(signal.SIGINT)
        code, last = found.stopped()
        assert code == 0 and "0 requests left" in last
        psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
        assert not any(psutil.pid_exists(pid) for pid in pids), "stages are left"


def stages(service: Service) -> list[int]:
    """The processes of the pipeline."""
    below = psutil.Process(service.process.pid).children(recursive=True)
    return [child.pid for child in below if any("stage.py" in part for part in child.cmdline())]


def body(seed: int) -> bytes:
    target = BytesIO()
    picture(seed).save(target, "PNG")
    return target.getvalue()


def test_the_pipeline_gives_the_boxes_of_the_whole_model(service: Service, bundle: Path) -> None:
    assert len(stages(service)) == 2
    chain = open_chain(bundle / "model.onnx", Runtime())
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda seed: service.predict(body(seed)), range(8)))
    for seed, answer in enumerate(answers):
        assert answer.status == 200
        assert_same(answer.told, chain.answer(np.ascontiguousarray(np.asarray(picture(seed))[..., ::-1])))


def assert_same(told: dict[str, Any], rows: np.ndarray) -> None:
    found = np.array([[*box["box"], box["score"], box["class"]] for box in told["boxes"]]).reshape(-1, 6)
    assert found.shape == rows.shape and len(rows) > 0
    np.testing.assert_allclose(found[:, :4], rows[:, :4], atol=PIXELS)
    np.testing.assert_allclose(found[:, 4], rows[:, 4], atol=SCORE)


def test_when_a_stage_dies_requests_fail_until_there_is_a_new_pipeline(service: Service) -> None:
    psutil.Process(stages(service)[1]).kill()
    assert service.predict(body(0)).status == 500
    end = time.monotonic() + 120
    while (status := service.predict(body(0)).status) != 200 and time.monotonic() < end:
        assert status in (500, 503)
        time.sleep(0.5)
    assert status == 200 and len(stages(service)) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "2", "--replicas", "2"], "leave out --replicas"),
        (["--devices", "cpu:0"], "give --split too"),
        (["--split", "2", "--devices", "cpu:0"], "1 devices were given for 2 stages"),
        (["--split", "2", "--devices", "cpu:0,cuda:7"], "no CUDAExecutionProvider here"),
    ],
)
def test_what_cannot_be_served_is_said(bundle: Path, options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "search", "serve", str(bundle), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2 and said in done.stderr
