"""The texts of a bundle: the model card and the licence notice."""

from __future__ import annotations

from search.bundle.manifest import Manifest, Measured
from search.bundle.sbom import LICENCES
from search.tasks.accuracy import value_of
from spaces.describe import describe
from spaces.recipe import Recipe


def model_card(manifest: Manifest) -> str:
    """``README.md``: how to run it, what was measured, how it was made, and what it is not good for."""
    return "\n\n".join(
        [
            f"# {manifest.name}",
            _about(manifest),
            _run(manifest),
            f"## Measured\n\n{_figures(manifest.measured)}\n\n{_how(manifest)}",
            _made(manifest),
            _limits(manifest),
            _licence(),
        ]
    ) + "\n"  # fmt: skip


def notice(manifest: Manifest) -> str:
    """``NOTICE.md``: whose terms apply to what."""
    packages = "\n".join(f"- {name} {manifest.packages[name]}: {LICENCES[name]}" for name in manifest.packages)
    return f"""# Licences

**The model (`model.onnx`) is under the AGPL-3.0.** It was made with Ultralytics YOLO, which is under the GNU Affero
General Public License 3.0 and marks the models that it makes as such (`license` in the file's metadata). In plain
words: who gets the model, or uses it over a network, has the right to the complete source of what it is a part of,
under the same licence. Who does not want that needs an Enterprise Licence of Ultralytics
(https://ultralytics.com/license). The text of the AGPL-3.0 is in `LICENSE`. This is a notice, not legal advice.

**The runner (`*.py`)** is part of yolo-front, under the AGPL-3.0 or later.

**The packages that it needs** are not in this folder; they come with licences of their own:

{packages}

**The picture `sample.png`** is {manifest.sample.source}.
The rights in it, and in the data that the model was trained on, are those of that data.
"""


def _about(manifest: Manifest) -> str:
    kind = "detector" if manifest.task == "detect" else "classifier"
    shape = f"{manifest.input.width} × {manifest.input.height} px"
    return (
        f"A YOLO {kind} of {len(manifest.labels)} classes ({_few(manifest.labels)}) at {shape}, the pick "
        f"`{manifest.pick}` of the study `{manifest.study}` (record `{manifest.record}`), for ONNX Runtime on a CPU."
    )


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (", … in bundle.json" if len(labels) > 10 else "")


def _run(manifest: Manifest) -> str:
    answers, limits = ("boxes" if manifest.task == "detect" else "classes"), manifest.thresholds
    meaning = (
        "boxes are left, top, right and bottom in the pixels of the\n"
        f"picture. They have a score above {limits.confidence:g}; of those of one class that overlap by more than "
        f"{limits.iou:g} the best is kept;\nat most {limits.most} of a picture."
        if manifest.task == "detect"
        else "the five likeliest classes, the likeliest\nfirst."
    )
    service = "" if manifest.place == "edge" else _SERVICE
    return f"""## Run

Python 3.11 or newer; neither torch nor ultralytics is needed.

    python -m venv .venv
    .venv/bin/python -m pip install -r requirements.txt
    .venv/bin/python run.py sample.png --json
    .venv/bin/python run.py IMAGE|FOLDER|VIDEO --out DIR     # pictures with their {answers}, and answers.jsonl
    .venv/bin/python benchmark.py                            # how fast it is here, and whether it answers as it should
    sha256sum -c SHA256SUMS                                  # whether all files are as they were made

`--json` prints an object for each picture, a line each: {meaning}

Pillow reads images, animated GIF and WebP, and motion JPEG (`.mjpeg`); other videos need ffmpeg or OpenCV. Labels,
thresholds, input and figures are in `bundle.json`.{service}"""


_SERVICE = """

## Serve

    .venv/bin/python server.py                            # http://127.0.0.1:8000 until Ctrl-C; --help has the settings
    curl --data-binary @sample.png -H 'Content-Type: image/png' http://127.0.0.1:8000/predict
    .venv/bin/python load.py http://127.0.0.1:8000        # requests a second and times, under load
    docker build -t yolo . && docker run --rm --shm-size 512m -p 127.0.0.1:8000:8000 yolo

`POST /predict` takes a JPEG, PNG, WebP or BMP as its body and gives what `run.py --json` prints; `GET /health` is 200
once the model has answered `sample.png` as it should; `GET /metrics` is for Prometheus, `/openapi.json` for programs,
`/` a page to try it. There is no password: put it behind something that asks for one before others reach it.

`triton/` is a model repository for NVIDIA Triton, which runs the model alone; `triton_client.py IMAGE --url URL` does
the rest. Its copy of the model may take any number of pictures at once, and computes the same."""


def _figures(measured: Measured) -> str:
    ratio = f"×{measured.latency_ratio:.3f} {_interval(measured.latency_ratio_ci)}"
    rows = [
        ("accuracy", _accuracy(measured)),
        *((name, f"{value:.3f}") for name, value in measured.further.items()),
        ("accuracy of the FP32 baseline", f"{measured.baseline_accuracy:.3f}"),
        *([("on the test split", f"{value_of(measured.test):.3f}, measured once")] if measured.test else []),
        ("latency, as a share of the FP32 baseline's", ratio),
        (_of_a_run(measured), f"{measured.latency_ms_p50:.2f} ms (p50), {measured.latency_ms_p95:.2f} ms (p95)"),
        ("size", f"{measured.size_bytes / 1e6:.2f} MB, ×{measured.size_ratio:.3f} of the baseline's"),
        ("parameters", f"{measured.parameters:,}"),
        ("operations", f"{measured.flops / 1e9:.3g} GFLOP a picture"),
    ]  # fmt: skip
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _of_a_run(measured: Measured) -> str:
    return "latency" if measured.latency_batch == 1 else f"latency of {measured.latency_batch} pictures at once"


def _accuracy(measured: Measured) -> str:
    interval = _interval(measured.accuracy_ci) if measured.accuracy_ci else "(its interval was not measured)"
    return f"{measured.metric} {measured.accuracy:.3f} {interval}"


def _interval(bounds: tuple[float, float]) -> str:
    return f"(95 %: {bounds[0]:.3f} to {bounds[1]:.3f})"


def _how(manifest: Manifest) -> str:
    measured, machine = manifest.measured, manifest.measured.machine
    cpu = f"{machine.get('cpu', 'a processor that was not noted')}, {machine.get('usable_cores', '?')} cores"
    waiting = (
        f" In {measured.waiting:.0%} of the time other work held the core, and the milliseconds are too long by that."
        if measured.waiting >= 0.005
        else ""
    )
    pictures = (
        "one picture at a time"
        if measured.latency_batch == 1
        else f"{measured.latency_batch} pictures at once in a copy of the file that takes so many,"
    )
    return (
        f"The accuracy is that of this very file on the {measured.images} images of the validation split, by "
        f"Ultralytics' validator. The latency is that of the model alone, {pictures} on {manifest.threads} "
        f"thread(s) with {measured.runtime or 'ONNX Runtime'}, timed run by run beside the uncompressed model "
        f"({measured.runs} runs, {measured.clock} clock) "
        f"on host `{measured.host}`: {cpu}. Milliseconds hold for that machine only; the share "
        f"is about the same on processors of its kind.{waiting}"
    )


def _made(manifest: Manifest) -> str:
    counts = ", ".join(f"{count} {split} images" for split, count in manifest.data.items()) or "not noted"
    return (
        f"## Made\n\nRecipe: {describe(Recipe.model_validate(manifest.recipe))} (in full in `bundle.json`).\n\n"
        f"Data: {counts}. Made by {manifest.made_by}."
    )


def _limits(manifest: Manifest) -> str:
    measured = manifest.measured
    chosen = (
        "The search chose by the validation split, so expect a little less on new images than the accuracy above"
        + ("; the test split says how much." if measured.test else ", and there was no test split to say how much.")
    )
    lines = [
        chosen,
        "It knows the classes above and pictures like those it was trained on; nothing else was tested.",
        "On a processor without fast int8 instructions (VNNI, dot products) an int8 file gains less speed, and answers "
        "may differ a little: run `benchmark.py` there.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence() -> str:
    return (
        "## Licence\n\nThe model is under the AGPL-3.0, from Ultralytics: see [NOTICE.md](NOTICE.md). What it is made "
        "of is in `sbom.cdx.json` (CycloneDX)."
    )
