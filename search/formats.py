"""The file formats of a model: what writes each, what each can carry, and what it needs on this machine.

A search measures ONNX files. The others are written of the same trained model, for runtimes that do not read ONNX.
Nothing heavy is imported here, so that ``doctor`` can tell what is missing.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement

from search.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format.

    ``exporter`` is its name in Ultralytics. ``packages`` are requirements, of which "a | b" stands for either;
    ``install`` says how to get them. ``systems`` are the machines that its converter runs on, all if empty. ``gpu``
    says that a file is made on an NVIDIA GPU, for that GPU. ``no_fp16`` and ``no_integers`` say why 16-bit weights
    and quantized ones are not to be had; they are, where empty, and in the kinds of ``integers``.
    """

    exporter: str
    packages: tuple[str, ...] = ()
    install: str = ""
    systems: tuple[str, ...] = ()
    gpu: bool = False
    no_fp16: str = ""
    no_integers: str = ""
    integers: tuple[str, ...] = ()


ELSEWHERE = "run the apply command there"
ANEW = "its quantizer chooses layers and ranges anew, which gives another model than the one that was measured"

# The versions are those that Ultralytics' exporter asks for. Files of a later pnnx crash ncnn (pnnx issue 293).
FORMATS: dict[str, Format] = {
    "onnx": Format(exporter="onnx", packages=("onnx>=1.12.0,<2.0.0", "onnxslim>=0.1.82"), install="make setup"),
    "torchscript": Format(
        exporter="torchscript",
        packages=("torch",),
        install="make setup",
        no_fp16="its exporter writes 16-bit weights on a GPU only",
        no_integers="its exporter writes floats only",
    ),
    "openvino": Format(
        exporter="openvino",
        packages=("openvino>=2024.0.0",),
        install="pip install -c constraints.txt -e '.[openvino]'",
        no_integers=f"{ANEW}; OpenVINO reads the int8 model.onnx as it is",
    ),
    "ncnn": Format(
        exporter="ncnn",
        packages=("ncnn", "pnnx==20260526"),
        install="pip install -c constraints.txt -e '.[ncnn]'",
        no_integers="its exporter writes floats only",
    ),
    "litert": Format(
        exporter="litert",
        systems=("Linux x86_64", "Darwin x86_64", "Darwin arm64"),
        no_fp16="LiteRT itself computes an fp32 file in 16 bits where its delegate is told to",
        integers=("int8", "int8_dynamic", "weight_only"),
        no_integers="its quantizer has int8, int8_dynamic and weight_only with 8 bits",
    ),
    "tensorrt": Format(
        exporter="engine",
        packages=("tensorrt | tensorrt-cu13 | tensorrt-cu12",),
        install="pip install tensorrt-cu12 or tensorrt-cu13, as PyTorch's CUDA is",
        gpu=True,
        no_integers=ANEW,
    ),
}


class Obstacle(NamedTuple):
    """What stands in the way, and what to do about it."""

    reason: str
    advice: str


def why_not_here(name: str, *, gpu: bool) -> Obstacle | None:
    """Why this machine cannot write files of the format ``name``; None if it can.

    ``gpu`` says whether there is an NVIDIA GPU.
    """
    form, here = FORMATS[name], f"{platform.system()} {platform.machine()}"
    if form.systems and here not in form.systems:
        return Obstacle(f"{name} files can be made on {', '.join(form.systems)} only, and this is {here}", ELSEWHERE)
    if form.gpu and not gpu:
        return Obstacle(f"{name} files are made on the NVIDIA GPU that runs them, and there is none here", ELSEWHERE)
    missing = [package for package in form.packages if not _installed(package)]
    return Obstacle(f"{name} needs {' and '.join(missing)}", form.install) if missing else None


def why_not_carried(name: str, precision: str) -> str:
    """Why a file of the format ``name`` cannot hold a model in a kind of ``quantize``; empty if it can."""
    form = FORMATS[name]
    others = "" if precision in form.integers else form.no_integers
    reason = {"fp32": "", "fp16": form.no_fp16}.get(precision, others)
    return f"{name} cannot carry quantize: {precision}: {reason}. Use a recipe with fp32" if reason else ""


def check_format(name: str, precision: str, *, gpu: bool) -> None:
    """Refuses a format that cannot be written here, or not in a kind of ``quantize``.

    Raises:
        UserError: why, and what to do.
    """
    if name not in FORMATS:
        raise UserError(f"format {name}: allowed are {', '.join(FORMATS)}")
    if reason := why_not_carried(name, precision):
        raise UserError(reason)
    if obstacle := why_not_here(name, gpu=gpu):
        raise UserError(": ".join(obstacle))


def versions(name: str) -> str:
    """The installed packages of the format ``name``, as "ncnn 1.0, pnnx 2.0"; empty if it needs none."""
    found = [package for alternatives in FORMATS[name].packages for package in _installed(alternatives)]
    return ", ".join(f"{package} {metadata.version(package)}" for package in found)


def _installed(alternatives: str) -> list[str]:
    """Those of "a | b" that are installed in a version that is asked for."""
    found: list[str] = []
    for wanted in map(Requirement, alternatives.split("|")):
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            continue
        if wanted.specifier.contains(version, prereleases=True):
            found.append(wanted.name)
    return found
