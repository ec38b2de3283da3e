"""A place behind a URL, as pyarrow or fsspec open it: list, read, write, and what errors mean.

A file appears there whole or not at all. The object stores that pyarrow speaks to make an object when its stream is
closed; anywhere else a file is written beside its place and moved.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from search.errors import UserError
from search.storage.urls import is_url, secret_in

NATIVE = frozenset({"file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})  # of pyarrow
OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})  # pyarrow's names for file systems whose files appear whole
CHUNK = 16 * 2**20  # bytes
MEANINGS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it first, or mend its name",
    "ACCESS_DENIED": "access is denied; give credentials that may list, read and write there",
    "INVALID_ACCESS_KEY_ID": "the access key is not known there; check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "NETWORK_CONNECTION": "it does not answer; check the address and the network",
    "Could not connect": "it does not answer; check the address and the network",
    "HTTP status 403": "access is denied; give credentials, in the environment or as a role of this machine",
    "HTTP status 301": "the bucket is in another region; add ?region=… to the URL",
    "anonymous": "there are no credentials; give some, in the environment or as a role of this machine",
}


class StorageError(UserError):
    """A place behind a URL that cannot be used now."""


@dataclass(frozen=True)
class Entry:
    """A file there: its size in bytes and when it was written, in nanoseconds since 1970."""

    size: int
    written: int


class Location:
    """A folder behind a URL; names are paths below it. Opened when it is first used, so it can be pickled.

    Every method raises ``OSError`` if the place does not answer or refuses.

    Args:
        url: of the folder, without credentials.

    Raises:
        UserError: it holds a secret.
    """

    def __init__(self, url: str) -> None:
        if not is_url(url):
            raise UserError(f"{url} is no URL")
        if secret := secret_in(url):
            raise UserError(
                f"a URL with {secret} ends up in logs and shells' histories; give credentials by the environment, "
                "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self.url = url

    def entries(self, folder: str = "", *, recursive: bool = True) -> dict[str, Entry | None]:
        """What is in ``folder``, by name: files, and None for folders; nothing if it is not there."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, root = _opened(self.url)
        place = f"{root}/{folder}" if folder else root
        found: dict[str, Entry | None] = {}
        for info in filesystem.get_file_info(FileSelector(place, recursive=recursive, allow_not_found=True)):
            name = info.path.lstrip("/").removeprefix(root.lstrip("/")).lstrip("/")
            if not name or ".." in PurePosixPath(name).parts:  # an object may be called so
                continue
            is_file = info.type == FileType.File
            found[name] = Entry(size=info.size, written=info.mtime_ns or 0) if is_file else None
        if not found and not folder and filesystem.type_name in OBJECT_STORES:
            bucket = root.partition("/")[0]  # one that does not exist lists as an empty one does
            if filesystem.get_file_info(bucket).type == FileType.NotFound:
                raise FileNotFoundError("NO_SUCH_BUCKET")
        return found

    def __contains__(self, name: str) -> bool:
        """Whether there is a file called ``name``."""
        from pyarrow.fs import FileType

        filesystem, root = _opened(self.url)
        return filesystem.get_file_info(f"{root}/{name}").type == FileType.File

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""
        filesystem, root = _opened(self.url)
        try:
            with filesystem.open_input_stream(f"{root}/{name}") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Puts ``content`` at ``name``, whole or not at all."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            self._put(name, file)

    def upload(self, path: Path, name: str) -> None:
        """Puts the file ``path`` at ``name``, whole or not at all."""
        with path.open("rb") as file:
            self._put(name, file)

    def download(self, name: str, path: Path) -> bool:
        """Puts what is at ``name`` at ``path``, whole or not at all; False if there is nothing."""
        filesystem, root = _opened(self.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("wb") as file, filesystem.open_input_stream(f"{root}/{name}") as stream:
                while block := stream.read(CHUNK):
                    file.write(block)
            os.replace(temporary, path)
        except FileNotFoundError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        filesystem, root = _opened(self.url)
        try:
            filesystem.delete_file(f"{root}/{name}")
        except FileNotFoundError:
            return

    def _put(self, name: str, file: Any) -> None:
        filesystem, root = _opened(self.url)
        place = f"{root}/{name}"
        whole = filesystem.type_name in OBJECT_STORES
        folder, _, last = place.rpartition("/")
        if not whole:
            filesystem.create_dir(folder, recursive=True)
        beside = place if whole else f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.tmp"
        with filesystem.open_output_stream(beside) as stream:
            shutil.copyfileobj(file, stream, CHUNK)
        if not whole:
            filesystem.move(beside, place)


def meaning(url: str, error: Exception) -> str:
    """What ``error`` says about ``url``, in a sentence."""
    text = str(error)
    known = next((meaning for sign, meaning in MEANINGS.items() if sign in text), None)
    return f"{url}: {known or ' '.join(text.split())[:300]}"


@lru_cache(maxsize=16)
def _opened(url: str) -> tuple[Any, str]:
    """The file system behind a URL and the path on it. Raises UserError for a scheme that nothing here speaks."""
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    scheme = url.partition("://")[0].lower()
    try:
        if scheme in NATIVE:
            filesystem, path = FileSystem.from_uri(url)
        else:
            import fsspec

            inner, path = fsspec.url_to_fs(url)
            filesystem = PyFileSystem(FSSpecHandler(inner))
    except (ImportError, ValueError, NotImplementedError) as error:
        known = ", ".join(sorted(f"{name}://" for name in NATIVE))
        raise UserError(
            f"{url} cannot be opened ({error}); known are {known} and what an installed fsspec package adds"
        ) from error
    return filesystem, path.rstrip("/")
