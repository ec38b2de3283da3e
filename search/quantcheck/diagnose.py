"""Everything that can be found out about one quantized file, alone or beside its float file and data."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from search.errors import UserError
from search.measure.host import host_info
from search.measure.latency import measure_latency
from search.measure.pairs import Effort
from search.quantcheck.collapse import Measure, collapse_findings
from search.quantcheck.device import host_findings, latency_findings
from search.quantcheck.finding import Finding
from search.quantcheck.fused import Fused, look, unfused_findings
from search.quantcheck.noise import Images
from search.quantcheck.size import is_quantized, shrink_findings, size_findings

IMAGES = 8  # that tensors are compared on
QUICK = Effort(runs=100, precision=0.02, seconds=10.0)  # whether it is slower than float, not by how much


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found, and how much of the file computes in integers on this machine."""

    findings: tuple[Finding, ...]
    layers: int  # that multiply and add
    integer_layers: int
    integer_macs_share: float


def diagnose(path: Path, *, float_file: Path | None = None, data: Path | None = None) -> Diagnosis:
    """Looks for everything that may be wrong with the quantized ONNX file at ``path``.

    Args:
        path: the file.
        float_file: what it was made from. Without it neither accuracy nor latency is looked at.
        data: images to compare both files on, and labels for their accuracy, which is not looked at without.

    Raises:
        UserError: a file is missing or refused, the first one is not quantized, or they are not of one model.
    """
    if not is_quantized(_loaded(path)):
        raise UserError(
            f"{path} is not quantized: it has neither integer weights nor quantize nodes; give an int8 file"
        )
    seen = look(path)
    findings = [
        *unfused_findings(seen),
        *host_findings(host_info().instruction_sets, integer_layers=len(seen.integer)),
        *size_findings(path),
    ]
    if float_file is not None:
        size = _image_size(_loaded(float_file))
        findings += shrink_findings(path.stat().st_size, float_file.stat().st_size)
        if data is not None:
            with _samples(data, size) as (images, measure):
                findings += collapse_findings(path, float_file, images, measure)
        latency = measure_latency(path, float_file, effort=QUICK)
        findings += latency_findings(latency.ratio, latency.ratio_low)
    return _diagnosis(seen, findings)


def _diagnosis(seen: Fused, findings: list[Finding]) -> Diagnosis:
    return Diagnosis(
        findings=tuple(findings),
        layers=len(seen.macs),
        integer_layers=len(seen.integer),
        integer_macs_share=seen.share(seen.integer),
    )


def _loaded(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UserError(f"there is no ONNX file at {path}; correct the path")
    try:
        return onnx.load(path)
    except Exception as error:
        raise UserError(
            f"{path} is no ONNX file ({error}); this reads ONNX files only: export the model to one"
        ) from error


def _image_size(model: onnx.ModelProto) -> int:
    return model.graph.input[0].type.tensor_type.shape.dim[2].dim_value


@contextmanager
def _samples(data: Path, image_size: int) -> Generator[tuple[Images, Measure]]:
    """Images to compare on, from the training split, and what measures accuracy on the validation split.

    Made-up images would not do: they leave the ranges that were calibrated, so that every file looks noisy.
    """
    from search.data import calibration_images, make_view, read_data
    from search.measure.accuracy import measure_accuracy
    from search.ultra import quiet_ultralytics

    with tempfile.TemporaryDirectory() as folder, quiet_ultralytics():
        view = make_view(read_data(data), Path(folder))
        images = calibration_images(view, image_size=image_size, count=IMAGES, seed=0)
        yield images, lambda file: measure_accuracy(file, view, image_size=image_size).value
