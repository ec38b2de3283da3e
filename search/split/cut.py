"""Cuts an ONNX file into stages of about equal cost, and shows that the chain answers as the whole."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from search.errors import UserError
from search.measure.latency import last_cores, pinned
from search.runtimes.onnx_runtime import OnnxSession, open_onnx
from search.runtimes.session import Runtime, made_up
from search.split.balance import balance
from search.split.cost import node_seconds, whole_tensors
from search.split.line import Place, Tensor, find_places, load_model, tensors_of
from search.split.runner.pipeline import FILE, Device, PipelineError

TOLERANCE = 1e-5  # share of an output's largest value that the chain may be away from the whole

Feed = dict[str, NDArray[Any]]


def split_model(path: Path, stages: int, out: Path, *, devices: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Writes ``stage1.onnx`` and so on, and ``split.json``, which says what is handed on; the folder appears whole.

    Args:
        path: the file to cut.
        stages: how many files to make of it.
        out: the folder to write; must not exist.
        devices: where each stage is to run, as ``Device.parse`` reads it; a core each, if not given.
        seed: of the picture that the chain is checked with.

    Returns:
        The content of ``split.json``.

    Raises:
        UserError: the file cannot be cut into so many stages, a device is none, or the folder exists.
    """
    if out.exists():
        raise UserError(f"{out} exists; give another --out, or remove it")
    if devices and len(devices) != stages:
        raise UserError(f"{len(devices)} devices were given for {stages} stages; name one for each")
    try:
        for device in devices:
            Device.parse(device)
    except PipelineError as error:
        raise UserError(str(error)) from error
    model = load_model(path)
    feed = _inputs(path, seed)
    with pinned(last_cores(1)):
        seconds = node_seconds(model, feed)
    chosen = _choose(model, seconds, stages, path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        folder = Path(place) / out.name
        folder.mkdir()
        borders = _borders(model, chosen)
        _write_stages(model, borders, folder)
        about = {
            "model": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "stages": _stages(folder, _shares(seconds, chosen), devices),
            "borders": [[asdict(tensor) for tensor in border] for border in borders],
            "bytes": [place.nbytes for place in chosen],
            "difference": _check(path, folder, feed, borders),
        }
        (folder / FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        folder.rename(out)
    return about


def _inputs(path: Path, seed: int) -> Feed:
    session = OnnxSession(path, Runtime())
    return {item.name: array for item, array in zip(session.inputs, made_up(session, path, seed), strict=True)}


def _choose(model: onnx.ModelProto, seconds: NDArray[np.float64], stages: int, path: Path) -> list[Place]:
    places = find_places(model, whole_tensors(model))
    before = np.cumsum(seconds)
    nbytes = np.array([place.nbytes for place in places], dtype=np.float64)
    try:
        found = balance(
            [before[place.after] for place in places], before[-1], nbytes * _seconds_a_byte(), nbytes, stages
        )
    except ValueError:
        raise UserError(
            f"{path} has {len(places)} places to cut, which make 1 to {len(places) + 1} stages, not {stages}"
        ) from None
    return [places[index] for index in found]


def _seconds_a_byte() -> float:
    """Of copying in memory, here; a little less than what a tensor costs that another core wrote."""
    source, times = np.ones(1 << 20, dtype=np.float32), []
    target = np.empty_like(source)
    for _ in range(10):
        start = perf_counter()
        np.copyto(target, source)
        times.append(perf_counter() - start)
    return min(times) / source.nbytes


def _shares(seconds: NDArray[np.float64], chosen: Sequence[Place]) -> list[float]:
    """Of the whole time, what each stage is expected to take."""
    before = np.cumsum(seconds)
    ends = [0.0, *(before[place.after] for place in chosen), before[-1]]
    return [round(float(share), 4) for share in np.diff(ends) / before[-1]]


def _borders(model: onnx.ModelProto, chosen: Sequence[Place]) -> list[list[Tensor]]:
    """What is handed on before, between and behind the stages."""
    known, stored = tensors_of(model), {tensor.name for tensor in model.graph.initializer}
    first = [known[entry.name] for entry in model.graph.input if entry.name not in stored]
    last = [known[entry.name] for entry in model.graph.output]
    return [first, *(list(place.tensors) for place in chosen), last]


def _write_stages(model: onnx.ModelProto, borders: Sequence[Sequence[Tensor]], folder: Path) -> None:
    """Each stage has what its outputs depend on up to its inputs; what it only hands on is not in its file."""
    extractor = Extractor(model)
    for number, (inputs, outputs) in enumerate(pairwise(borders), 1):
        given = [tensor.name for tensor in inputs]
        made = [tensor.name for tensor in outputs if tensor.name not in given]
        stage = extractor.extract_model(given, made)
        read = {name for node in stage.graph.node for name in node.input}
        for entry in [entry for entry in stage.graph.input if entry.name not in read]:
            stage.graph.input.remove(entry)
        del stage.graph.value_info[:]  # ONNX Runtime tells shapes by itself
        onnx.checker.check_model(stage)
        onnx.save(stage, folder / _file(number))


def _file(number: int) -> str:
    return f"stage{number}.onnx"


def _stages(folder: Path, shares: Sequence[float], devices: Sequence[str]) -> list[dict[str, Any]]:
    stages = [
        {"file": _file(number), "bytes": (folder / _file(number)).stat().st_size, "share": share}
        for number, share in enumerate(shares, 1)
    ]
    return [stage | ({"device": devices[number]} if devices else {}) for number, stage in enumerate(stages)]


def _check(path: Path, folder: Path, feed: Feed, borders: Sequence[Sequence[Tensor]]) -> float:
    """How far the chain's outputs are from the whole model's: the largest difference, as a share of the largest value.

    Raises:
        UserError: they are further apart than ``TOLERANCE``, or of other shapes.
    """
    names = [tensor.name for tensor in borders[-1]]
    whole: Any = open_onnx(path, threads=1).run(names, feed)
    tensors = dict(feed)
    for number in range(1, len(borders)):
        session = open_onnx(folder / _file(number), threads=1)
        made = [item.name for item in session.get_outputs()]
        taken = {item.name: tensors[item.name] for item in session.get_inputs()}
        results: Any = session.run(made, taken)
        tensors |= dict(zip(made, results, strict=True))
        told = {name: (tensors[name].shape, tensors[name].dtype.name) for name in made}
        if told != {item.name: (item.shape, item.dtype) for item in borders[number] if item.name in made}:
            raise UserError(f"stage {number} of {path} makes {told}, which is not what the file says; export it again")
    away = max(_away(tensors[name], values) for name, values in zip(names, whole, strict=True))
    if not away <= TOLERANCE:
        raise UserError(f"{path}, cut into {len(borders) - 1}, answers otherwise (by {away:.1g}); it cannot be split")
    return away


def _away(values: NDArray[Any], expected: NDArray[Any]) -> float:
    largest = float(np.abs(expected.astype(np.float64)).max()) or 1.0
    return float(np.abs(values.astype(np.float64) - expected.astype(np.float64)).max()) / largest
