"""The model of this bundle: a picture in, boxes or classes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classification
import detection
import numpy as np
import onnxruntime
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Refused(Exception):  # noqa: N818 - it is no bug
    """What was wrong, where, and what to do, in one sentence."""


class Model:
    """``model.onnx`` beside this file, with what ``bundle.json`` says of it.

    Attributes:
        about: the content of ``bundle.json``.
        task: "detect" or "classify".
        labels: the names of the classes.
    """

    def __init__(self, *, threads: int | None = None, confidence: float | None = None, iou: float | None = None):
        """Loads it; what is not given is as in ``bundle.json``. Raises Refused."""
        try:
            self.about = json.loads((FOLDER / "bundle.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"bundle.json cannot be read: {error}; unpack the bundle again") from error
        self.task, self.labels = self.about["task"], self.about["labels"]
        limits = self.about["thresholds"]
        self._confidence = limits["confidence"] if confidence is None else confidence
        self._iou = limits["iou"] if iou is None else iou
        self._most = limits["most"]
        self.threads = threads or self.about["threads"]
        self._session = _open(FOLDER / self.about["model"], self.threads)
        [item] = self._session.get_inputs()
        self._name, self._dtype = item.name, _DTYPES[item.type]
        self.height, self.width = self.about["input"]["height"], self.about["input"]["width"]

    def answer(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes in the picture's pixels (n, 6): left, top, right, bottom, score, class; best first.

        Of a classifier the likeliest classes (n, 2): class, probability.

        Args:
            picture: (H, W, 3), blue first.
        """
        if self.task == "classify":
            return classification.likeliest(self.run(classification.centre_crop(picture, self.height, self.width)))
        planes, placement = detection.letterbox(picture, self.height, self.width)
        boxes = detection.find_boxes(
            self.run(planes), confidence=self._confidence, iou=self._iou, most=self._most
        )  # fmt: skip
        return detection.on_picture(boxes, placement)

    def run(self, planes: NDArray[Any]) -> NDArray[Any]:
        """The model alone: its first output for an input of (1, 3, H, W), red first, in [0, 1]."""
        return self._session.run(None, {self._name: planes.astype(self._dtype, copy=False)})[0]


def _open(path: Path, threads: int) -> Any:
    """A session as the model was measured in: every graph optimisation, operators in turn, nothing spins."""
    runtime: Any = onnxruntime  # it has no type stubs
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:  # ONNX Runtime's exceptions have no base class of their own
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(f"ONNX Runtime {runtime.__version__} cannot load {path}: {error}") from error
