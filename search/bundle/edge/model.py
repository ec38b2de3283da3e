"""The model of this bundle: a picture in, boxes or classes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classification
import detection
import numpy as np
import onnxruntime
from answers import differences
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

    def __init__(
        self,
        *,
        threads: int | None = None,
        confidence: float | None = None,
        iou: float | None = None,
        file: str | None = None,
    ):
        """Loads it, or ``file`` instead; what is not given is as in ``bundle.json``. Raises Refused."""
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
        self._session = _open(FOLDER / (file or self.about["model"]), self.threads)
        [item] = self._session.get_inputs()
        self._name, self._dtype, self._one_by_one = item.name, _DTYPES[item.type], item.shape[0] == 1
        self.height, self.width = self.about["input"]["height"], self.about["input"]["width"]

    def answer(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes in the picture's pixels (n, 6): left, top, right, bottom, score, class; best first.

        Of a classifier the likeliest classes (n, 2): class, probability.

        Args:
            picture: (H, W, 3), blue first.
        """
        planes, placement = self.before(picture)
        return self.after(self.run(planes), placement)

    def before(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], detection.Placement | None]:
        """The model's input (1, 3, H, W) for a picture, red first, in [0, 1]; for a detector, where it lies in it."""
        if self.task == "classify":
            return classification.centre_crop(picture, self.height, self.width), None
        return detection.letterbox(picture, self.height, self.width)

    def run(self, planes: NDArray[Any]) -> NDArray[Any]:
        """The model alone: its first output (n, …) for an input of (n, 3, H, W), red first, in [0, 1]."""
        planes = planes.astype(self._dtype, copy=False)
        if len(planes) == 1 or not self._one_by_one:
            return self._session.run(None, {self._name: planes})[0]
        return np.concatenate([self._session.run(None, {self._name: one[None]})[0] for one in planes])

    def check(self) -> None:
        """Raises Refused if it cannot answer any more, which may happen to one that runs elsewhere."""

    def after(self, output: NDArray[Any], placement: detection.Placement | None) -> NDArray[np.float32]:
        """What ``answer`` gives, of one picture's output (1, …) and what ``before`` gave with its input."""
        if placement is None:
            return classification.likeliest(output)
        boxes = detection.find_boxes(output, confidence=self._confidence, iou=self._iou, most=self._most)
        return detection.on_picture(boxes, placement)

    def as_json(self, answer: NDArray[np.float32]) -> dict[str, list[dict[str, Any]]]:
        """An answer as it is written in JSON, with the names of the classes: ``boxes``, or ``classes``."""
        if self.task == "classify":
            found = [(int(label), score) for label, score in answer.tolist()]
            rows = [{"label": self.labels[label], "class": label, "score": round(score, 5)} for label, score in found]
            return {"classes": rows}
        return {
            "boxes": [
                {
                    "label": self.labels[int(label)],
                    "class": int(label),
                    "score": round(score, 5),
                    "box": [round(edge, 2) for edge in edges],
                }
                for *edges, score, label in answer.tolist()
            ]
        }

    def sample_differences(self, answer: NDArray[np.float32]) -> tuple[float, float] | None:
        """How far an answer to the sample is from the expected one: (pixels, score); None if it has others."""
        expected = np.array(self.about["sample"]["answers"], dtype=np.float32).reshape(-1, answer.shape[1])
        return differences(answer, expected)

    def as_expected(self, apart: tuple[float, float] | None) -> bool:
        """Whether what ``sample_differences`` gave is within the tolerance of ``bundle.json``."""
        tolerance = self.about["sample"]["tolerance"]
        return apart is not None and apart[0] <= tolerance["pixels"] and apart[1] <= tolerance["score"]


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
