"""Python environments for packages that need other versions than the project has, made when they are first needed.

An environment lies over the project's own: what is installed there is found in it too, and only what is missing, or
there in a version that the requirements do not allow, is installed into it. So PyTorch, gigabytes with CUDA, is not
installed again, and is the same on both sides, which files passed between them need. The project's own environment is
left as it is, and the project itself is not importable.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from search.errors import UserError

ROOT_VARIABLE = "YOLO_FRONT_ENVIRONMENTS"
MARKER = "complete"  # written last: a folder without it was left by a process that was stopped
LAST_LINES = 5  # of pip's, in an error


@dataclass(frozen=True)
class Environment:
    """Packages that are installed together; ``requirements`` are pip's, each best pinned."""

    name: str
    requirements: tuple[str, ...]


LITERT = Environment("litert", ("litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0"))


def python_of(environment: Environment) -> Path:
    """The interpreter of ``environment``, which is made if it is not there: once, by whoever asks first.

    Run it with ``-I``, so that neither ``PYTHONPATH`` nor a script's folder adds modules.

    Raises:
        UserError: it cannot be made; with pip's last words.
    """
    folder = _folder(environment)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock")):
            if found := find_python(environment):
                return found
            shutil.rmtree(folder, ignore_errors=True)
            _make(environment, folder)
    except OSError as error:
        raise UserError(
            f"cannot make the environment {environment.name}: {error}; set {ROOT_VARIABLE} to a folder with some "
            "gigabytes of room"
        ) from error
    return _python(folder)


def find_python(environment: Environment) -> Path | None:
    """The interpreter of ``environment`` if it is there, whole; nothing is made."""
    folder = _folder(environment)
    python = _python(folder)
    return python if (folder / MARKER).is_file() and python.exists() else None


def installed_in(environment: Environment, package: str) -> str | None:
    """The version of ``package`` that lies in ``environment``, once made, over the project's own; None if none does."""
    packages = _packages(_folder(environment))
    return next((found.version for found in metadata.distributions(name=package, path=[str(packages)])), None)


def _folder(environment: Environment) -> Path:
    """Where the environment is or would be: another place for other requirements, and over another environment."""
    content = "\n".join([*environment.requirements, sys.version, *_own_packages()])
    root = os.environ.get(ROOT_VARIABLE) or Path.home() / ".cache" / "yolo-front" / "environments"
    return Path(root).absolute() / f"{environment.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _own_packages() -> list[str]:
    """The folders of the packages of the environment that this process runs in."""
    return sorted({str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")})


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _make(environment: Environment, folder: Path) -> None:
    """Makes the environment in its place, since the scripts of another would name the wrong interpreter."""
    try:
        venv.create(folder, symlinks=True, with_pip=find_spec("pip") is None)  # else that of the project is found
        (_packages(folder) / "project.pth").write_text("".join(f"{path}\n" for path in _own_packages()))
        command = [str(_python(folder)), "-I", "-m", "pip", "install", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--no-warn-conflicts", *environment.requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
            raise UserError(
                f"pip could not install {', '.join(environment.requirements)} for the environment "
                f"{environment.name}; mend what it says, such as the network, and try again:\n{said}"
            )
        (folder / MARKER).touch()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Waits until no other process holds ``path``; the lock goes with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
