"""Runs a bundle as a service on this machine: this version's code (search/bundle/cloud) around the bundle's model.

The code of the bundle itself is not executed, so a bundle of another version, and one for the edge, are served too.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from search.bundle.code import code_files
from search.bundle.manifest import FILE, MODEL, SAMPLE, read_manifest
from search.bundle.sums import wrong_sums
from search.bundle.triton import REPOSITORY, write_repository
from search.errors import UserError
from search.split.cut import split_model
from search.split.runner.pipeline import Pipeline, PipelineError

STAGES = "stages"  # a folder beside the model, as search/bundle/cloud/app.py looks for it
PIPED = "piped.py"
RUNNER = ("__init__.py", "pipeline.py", "stage.py")


def serve_bundle(folder: Path, options: Mapping[str, str], *, stages: int = 0, devices: Sequence[str] = ()) -> int:
    """Serves until SIGINT or SIGTERM, and then until every request that was begun is answered.

    Args:
        folder: of a bundle.
        options: of ``search/bundle/cloud/server.py``, without dashes.
        stages: of the pipeline that runs the model; 0 for none.
        devices: where its stages run.

    Returns:
        Its exit code.

    Raises:
        UserError: it is no bundle, a file in it was changed, its model cannot be split so, or Ray Serve is not
            installed.
    """
    if find_spec("fastapi") is None:
        raise UserError("Ray Serve is not installed: pip install -e '.[serve]'")
    with tempfile.TemporaryDirectory(prefix="yolo-serve-") as place:
        stage(folder, Path(place))
        if stages:
            stage_split(Path(place), stages, devices)
        command = [sys.executable, str(Path(place) / "server.py")]
        command += [f"--{name}={value}" for name, value in options.items()]
        process = subprocess.Popen(command)

        def told(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def stage(folder: Path, place: Path) -> None:
    """Puts what is served together in ``place``: the model and what is said of it, and this version's code.

    Raises:
        UserError: as ``serve_bundle``.
    """
    manifest = read_manifest(folder)
    if wrong := wrong_sums(folder):
        raise UserError(f"{folder} is not as it was made: {'; '.join(wrong)}; unpack it again")
    for name in (MODEL, FILE, SAMPLE):
        shutil.copyfile(folder / name, place / name)
    for name, content in code_files("cloud").items():
        (place / name).write_bytes(content)
    write_repository(folder / MODEL, place / REPOSITORY, threads=manifest.threads)  # one for the edge has none


def stage_split(place: Path, stages: int, devices: Sequence[str] = ()) -> None:
    """Puts the stages of the model in ``place`` too, which has it run as a pipeline, and the code for that.

    Raises:
        UserError: it cannot be split so, or a stage does not load where it is to run.
    """
    split_model(place / MODEL, stages, place / STAGES, devices=devices)
    try:
        Pipeline(place / STAGES).close()
    except PipelineError as error:  # which Ray Serve would tell as a traceback
        raise UserError(f"the pipeline does not start: {error}; see --devices") from error
    package = resources.files("search")
    (place / PIPED).write_bytes((package / "bundle" / "cloud" / PIPED).read_bytes())
    (place / "runner").mkdir()
    for name in RUNNER:
        (place / "runner" / name).write_bytes((package / "split" / "runner" / name).read_bytes())
