"""Calibration: the images that show which range each activation takes, and the ways to read a range off them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

from spaces.parts.quantize import Calibrator

Images = Sequence[np.ndarray]  # each (1, 3, H, W) float32 in [0, 1]
ImageSource = Callable[[int], Images]  # gives so many calibration images

CALIBRATORS: dict[Calibrator, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
PERCENTILE = 99.99  # of the values lie inside the range: the best in Wu et al., arXiv 2004.09602, table 5
# ONNX Runtime's default histogram has as many bins as there are quantized ones, 128, and so cuts off nothing.
ENTROPY_BINS = {"num_bins": 256, "num_quantized_bins": 128}


class Reader(CalibrationDataReader):
    """Feeds images to the calibrator one by one, as the model's input ``name``."""

    def __init__(self, name: str, images: Images) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image, or None after the last."""
        return next(self._feeds, None)


def write_entropy_ranges(model: Path, images: Images, cache: Path) -> None:
    """Writes the ranges of the least Kullback-Leibler divergence as a cache that ``quantize_static`` reads.

    Migacz, "8-bit Inference with TensorRT", 2017. ``quantize_static`` itself has no way to set the bins.
    """
    calibrator = create_calibrator(
        model,
        augmented_model_path=str(model.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod.Entropy,
        extra_options=ENTROPY_BINS,
    )
    assert calibrator is not None
    calibrator.collect_data(Reader(onnx.load(model).graph.input[0].name, images))
    save_tensors_data(calibrator.compute_data(), cache)


def fingerprints(images: Images) -> dict[str, str]:
    """Metadata that names the calibration images: 12 hexadecimal digits each of the SHA-256 of the input's bytes.

    Hashed is what the model was fed, (1, 3, H, W) float32, so that anyone with the data set can check which split
    the images are from.
    """
    hashes = (hashlib.sha256(np.ascontiguousarray(image, np.float32).tobytes()).hexdigest()[:12] for image in images)
    return {"calibration_sha256": ",".join(hashes)}
