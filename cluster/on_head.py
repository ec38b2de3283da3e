"""What a job does on the cluster's head, in the folder that was shipped: start or resume a study, or send its files.

    python -m cluster.on_head study ROOT      python -m cluster.on_head index FOLDER      python -m cluster.on_head send

Everything of a study is in a root folder that outlives the job: ``ROOT/studies/NAME``, and ``ROOT/inputs/NAME`` with
what was shipped for it. The folder that a job is given goes when it ends, so nothing that a study needs stays there.
``ROOT`` may be a URL. Then the study is behind it, with a note of what was shipped, and ``search`` has a working folder
for it on the head; the inputs come with every job and are in the home folder.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.places import folder_of, is_url
from cluster.wire import Piece, index, index_line, piece_lines

REQUEST = "request.json"
SHIPPED = "shipped.json"  # what was shipped: paths and digests
HOME = "~/yolo-front"
MAY_CHANGE = ("budget", "resources")  # of a study that goes on; everything else makes it another study


def main(arguments: list[str]) -> None:
    """Does what ``arguments`` say; what went wrong is one line in the job's log."""
    try:
        match arguments:
            case ["study", root]:
                run_study(root if is_url(root) else str(Path(root).expanduser()), Path.cwd())
            case ["index", folder]:
                print(index_line(index(_study_folder(folder))))
            case ["send"]:
                _send(json.loads(Path(REQUEST).read_text(encoding="utf-8")))
            case _:
                raise UserError(f"on_head does not know {arguments}")
    except UserError as error:
        sys.exit(f"error: {error}")


def run_study(root: str, package: Path) -> None:
    """Becomes ``python -m search run`` of the shipped study, or ``resume`` if it began here before."""
    _check_python(package)
    note: dict[str, Any] = json.loads((package / "inputs" / SHIPPED).read_text(encoding="utf-8"))
    place = folder_of(note["name"], root)
    inputs = Path(HOME if is_url(root) else root).expanduser() / "inputs" / note["name"]
    folder = _brought(place) if is_url(place) else Path(place)
    before = (folder if is_url(place) else inputs) / SHIPPED
    began = (folder / "study.yaml").is_file()
    if began:
        _check_same(note, before, place)
    _place(package / "inputs", inputs)
    if is_url(place):
        shutil.copy(inputs / SHIPPED, before)
    study = _on_this_side(note, inputs)
    if began:
        _change(folder / "study.yaml", study)
        command = ["resume", place]
    else:
        _write_yaml(inputs / "study.yaml", study)
        command = ["run", str(inputs / "study.yaml"), "--out", place]
    print(f"{'going on with' if began else 'starting'} {note['name']} in {place}", flush=True)
    os.environ["PYTHONUNBUFFERED"] = "1"  # the log is followed
    os.execv(sys.executable, [sys.executable, "-m", "search", *command])


def _check_python(package: Path) -> None:
    if [int(part) for part in platform.python_version_tuple()[:2]] < [3, 11]:
        raise UserError(f"the cluster runs Python {platform.python_version()}; 3.11 or newer is needed")
    from cluster.dependencies import missing

    if lost := missing(package):
        raise UserError(f"the cluster's image lacks {', '.join(lost)}; submit with --install, or use one that has them")


def _check_same(note: dict[str, Any], shipped: Path, folder: str) -> None:
    """Refuses to go on with a study that differs from what is in ``folder`` in more than budget and resources."""
    if not shipped.is_file():
        raise UserError(f"{folder} holds a study that was not submitted; give this one another name or another --root")
    before: dict[str, Any] = json.loads(shipped.read_text(encoding="utf-8"))
    changed = sorted(
        [key for key in _both(before["study"], note["study"]) if key not in MAY_CHANGE]
        + _both(before["digests"], note["digests"])
        + (["which of its files were shipped"] if before["shipped"] != note["shipped"] else [])
    )
    if changed:
        raise UserError(
            f"{folder} began as another study: it differs in {', '.join(changed[:5])}; give this one another name "
            f"(only {' and '.join(MAY_CHANGE)} may change when a study goes on)"
        )


def _both(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys whose values differ."""
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _place(shipped: Path, inputs: Path) -> None:
    """Puts what was shipped at ``inputs``, whole; files that a running view of the data links to keep their path."""
    new, old = inputs.with_name(f".{inputs.name}.new"), inputs.with_name(f".{inputs.name}.old")
    for place in (new, old):
        shutil.rmtree(place, ignore_errors=True)
    inputs.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shipped, new)
    if inputs.exists():
        inputs.rename(old)
    new.rename(inputs)
    shutil.rmtree(old, ignore_errors=True)


def _on_this_side(note: dict[str, Any], inputs: Path) -> dict[str, Any]:
    """The study with the paths that it has here."""
    study: dict[str, Any] = dict(note["study"])
    for key in ("model", "space", "data"):
        if str(study.get(key, "")).startswith("~"):
            study[key] = str(Path(study[key]).expanduser())
    shipped: dict[str, str | list[str]] = note["shipped"]
    for key, place in shipped.items():
        study[key] = _path(inputs, place) if isinstance(place, str) else [_path(inputs, each) for each in place]
    return study


def _path(inputs: Path, place: str) -> str:
    """A path below ``inputs``, or a path on the cluster as it is."""
    return str(inputs / Path(place).expanduser())


def _change(file: Path, study: dict[str, Any]) -> None:
    """Gives the study file of a study that goes on the budget and the resources of ``study``."""
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    _write_yaml(file, {**content, **{key: study.get(key) or {} for key in MAY_CHANGE}})


def _write_yaml(file: Path, content: dict[str, Any]) -> None:
    import yaml

    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    os.replace(temporary, file)


def _brought(url: str) -> Path:
    """The working folder on this machine of the study behind ``url``, brought up to date."""
    command = [sys.executable, "-m", "search", "sync", url, "--down", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(done.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return Path(json.loads(done.stdout)["folder"])


def _study_folder(folder: str) -> Path:
    place = _brought(folder) if is_url(folder) else Path(folder).expanduser()
    if not (place / "study.yaml").is_file():
        where = folder if is_url(folder) else f"{place} on the cluster's head"
        raise UserError(f"there is no study in {where} (yet); `logs` of its job says how it goes")
    return place


def _send(request: dict[str, Any]) -> None:
    wanted = [Piece(**piece) for piece in request["pieces"]]
    try:
        for line in piece_lines(_study_folder(request["folder"]), wanted):
            print(line)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} went while it was fetched; fetch again") from error


if __name__ == "__main__":
    main(sys.argv[1:])
