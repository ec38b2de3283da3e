"""What a study needs from this machine, and how its file reads on the cluster.

Files that the study names and that are here (model, space, earlier studies, the data when asked) are shipped. A path
that is not here must be one on the cluster, and so absolute: a relative one would mean another place there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from cluster.dataset import data_files
from cluster.errors import UserError
from cluster.package import Source, bytes_text, size
from cluster.places import is_url

FOLDER = "inputs"  # in the package
SHIPPED = "shipped.json"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # as a study's name is checked when it runs
WARM_START_FILES = ("study.yaml", "records.jsonl", "started.jsonl")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A study as its file has it, the files that it needs by their path, and which keys these are the values of.

    The value of a key in ``shipped`` is the path of its files, below the folder that they are in on the cluster.
    """

    name: str
    study: Mapping[str, Any]
    shipped: Mapping[str, str | list[str]]
    files: Mapping[str, Source]

    def packed(self) -> dict[str, Source]:
        """The files for the package, with ``shipped.json``, which says what they are."""
        digests = {path: _sha256(source) for path, source in sorted(self.files.items())}
        note = {"name": self.name, "study": self.study, "shipped": self.shipped, "digests": digests}
        content: dict[str, Source] = {f"{FOLDER}/{path}": source for path, source in self.files.items()}
        return content | {f"{FOLDER}/{SHIPPED}": json.dumps(note, indent=1, default=str).encode()}


def read_inputs(file: Path, *, with_data: bool = False, data: str | None = None) -> Inputs:
    """Reads a study file and finds what must be shipped with it.

    Args:
        file: the study file.
        with_data: ship the data set that it names.
        data: where the data set is on the cluster, instead of what the file names.

    Raises:
        UserError: the file is no study, or names a path that is neither here nor one on the cluster.
    """
    study = _read(file)
    if data is not None:
        study["data"] = data
    shipped: dict[str, str | list[str]] = {}
    files: dict[str, Source] = {}
    for key in ("model", "space"):
        if (found := _named_file(study, key)) is not None:
            shipped[key] = f"{key}/{found.name}"
            files[f"{key}/{found.name}"] = found
    if with_data:
        named, content = data_files(Path(str(study["data"])).expanduser())
        shipped["data"] = "data" if named == "." else f"data/{named}"
        files |= {f"data/{path}": source for path, source in content.items()}
    else:
        _check_data(study)
    if study.get("warm_start"):
        places, content = _warm_starts(study["warm_start"])
        shipped["warm_start"] = places
        files |= content
    cache = cast(dict[str, Any], study.get("resources") or {}).get("stage_cache")
    if cache is not None and not is_url(str(cache)) and not _is_absolute(str(cache)):
        raise UserError(f"resources.stage_cache: {cache} is no absolute path; give one on the cluster, or a URL")
    return Inputs(name=str(study["name"]), study=study, shipped=shipped, files=files)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"there is no study file {file}; write one as the README shows")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is no mapping; a study needs at least name, model, data and image_size")
    study = cast(dict[str, Any], content)
    if lost := next((key for key in ("name", "model", "data", "image_size") if key not in study), None):
        raise UserError(f"{file}: {lost} is missing")
    if not re.match(NAME, str(study["name"])):
        raise UserError(f"{file}: name: letters, digits, dots, dashes and underscores only; got {study['name']!r}")
    if not isinstance(study.get("resources") or {}, dict):
        raise UserError(f"{file}: resources is no mapping")
    return study


def _named_file(study: Mapping[str, Any], key: str) -> Path | None:
    """The file that ``study[key]`` names, if it is here; a name without a folder may be a preset, or Ultralytics'."""
    value = str(study.get(key, ""))
    path = Path(value).expanduser()
    if path.is_file():
        return path
    if len(path.parts) > 1 and not _is_absolute(value):
        raise UserError(f"{key}: there is no file {value} here; correct it, or give its absolute path on the cluster")
    return None


def _check_data(study: Mapping[str, Any]) -> None:
    value = str(study["data"])
    if _is_absolute(value):
        return
    path, here = Path(value), ""
    if path.exists():
        here = f", {bytes_text(sum(size(source) for source in data_files(path)[1].values()))}"
    raise UserError(
        f"data: {value} is a path on this machine{here}; ship it with --with-data (up to 100 MB), or say where it is "
        "on the cluster with --data /PATH"
    )


def _warm_starts(folders: Any) -> tuple[list[str], dict[str, Source]]:
    """Of earlier studies, only the records are needed."""
    places: list[str] = []
    files: dict[str, Source] = {}
    for index, value in enumerate(cast(list[Any], folders) if isinstance(folders, list) else [folders]):
        folder = Path(str(value)).expanduser()
        if (folder / "study.yaml").is_file():
            places.append(f"warm_start/{index}")
            found = [name for name in WARM_START_FILES if (folder / name).is_file()]
            files |= {f"warm_start/{index}/{name}": folder / name for name in found}
        elif _is_absolute(str(value)):
            places.append(str(value))
        else:
            raise UserError(f"warm_start: {value} is no study folder here; correct it, or give an absolute path there")
    return places, files


def _is_absolute(value: str) -> bool:
    return value.startswith(("/", "~"))


def _sha256(source: Source) -> str:
    return hashlib.sha256(source.read_bytes() if isinstance(source, Path) else source).hexdigest()
