"""The pictures of an image, a folder or a video, one after the other.

Pillow reads images, animations and motion JPEG. Other videos are read by ffmpeg if it is on the PATH, else by OpenCV
if it is installed.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from model import Refused
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", ".gif"})
MOTION_JPEG = frozenset({".mjpeg", ".mjpg"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
KNOWN = IMAGES | MOTION_JPEG | VIDEOS
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises for broken files


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture (H, W, 3), blue first; ``number`` counts the frames of a file from 0, None if it has only one."""

    file: Path
    number: int | None
    pixels: NDArray[np.uint8]


def frames(source: Path) -> Iterator[Frame]:
    """Every picture of an image, a video, or all images and videos below a folder, by name.

    Raises:
        Refused: there is nothing at ``source``, or nothing that can be read.
    """
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.suffix.lower() in KNOWN)
        if not files:
            raise Refused(f"{source} has no images and no videos; known endings are {', '.join(sorted(KNOWN))}")
    elif source.is_file():
        files = [source]
    else:
        raise Refused(f"there is no image, folder or video at {source}; correct the path")
    for file in files:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[Frame]:
    ending = file.suffix.lower()
    if ending in VIDEOS:
        for number, pixels in enumerate(_video(file)):
            yield Frame(file=file, number=number, pixels=pixels)
        return
    try:
        if ending in MOTION_JPEG:
            for number, pixels in enumerate(_motion_jpeg(file)):
                yield Frame(file=file, number=number, pixels=pixels)
            return
        with Image.open(file) as image:
            several = getattr(image, "n_frames", 1) > 1 and image.format in {"GIF", "WEBP", "PNG"}
            for number, one in enumerate(ImageSequence.Iterator(image) if several else [image]):
                yield Frame(file=file, number=number if several else None, pixels=blue_first(one))
    except _BROKEN as error:
        raise Refused(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def blue_first(image: Image.Image) -> NDArray[np.uint8]:
    """The picture as it is looked at: turned as its camera says, in colours, blue first."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return np.ascontiguousarray(np.asarray(turned.convert("RGB"))[..., ::-1])


def _motion_jpeg(file: Path) -> Iterator[NDArray[np.uint8]]:
    """The JPEGs of a file that has one behind the other."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 0
        while start < len(content):
            seam = content.find(b"\xff\xd9\xff\xd8", start)  # the end of one and the start of the next
            end = len(content) if seam < 0 else seam + 2
            with Image.open(BytesIO(content[start:end])) as image:
                yield blue_first(image)
            start = end


def _video(file: Path) -> Iterator[NDArray[np.uint8]]:
    if (program := shutil.which("ffmpeg")) is not None:
        yield from _by_ffmpeg(program, file)
        return
    try:
        import cv2
    except ImportError:
        raise Refused(
            f"{file}: to read videos, install ffmpeg (apt install ffmpeg) or OpenCV (pip install "
            "opencv-python-headless); animated GIF, WebP and .mjpeg need neither"
        ) from None
    yield from _by_opencv(cv2, file)


def _by_ffmpeg(program: str, file: Path) -> Iterator[NDArray[np.uint8]]:
    """Its frames as uncompressed PPM, one behind the other."""
    command = [program, "-v", "error", "-nostdin", "-i", f"file:{file.resolve()}", "-f", "image2pipe"]
    command += ["-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    with tempfile.TemporaryFile() as told:  # a pipe that nobody reads would fill up
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told) as child:
            assert child.stdout
            while (pixels := _ppm(child.stdout)) is not None:
                yield pixels
        told.seek(0)
        if child.returncode:
            raise Refused(f"ffmpeg cannot read {file}: {told.readline().decode(errors='replace').strip()}")


def _ppm(stream: IO[bytes]) -> NDArray[np.uint8] | None:
    """The next picture, or None at the end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()  # the largest value, 255
    content = stream.read(3 * width * height)
    if len(content) < 3 * width * height:  # ffmpeg ended in the middle
        return None
    return np.ascontiguousarray(np.frombuffer(content, dtype=np.uint8).reshape(height, width, 3)[..., ::-1])


def _by_opencv(cv2: Any, file: Path) -> Iterator[NDArray[np.uint8]]:
    video = cv2.VideoCapture(str(file))
    try:
        there, pixels = video.read()
        if not there:
            raise Refused(f"OpenCV cannot read {file}; install ffmpeg, or convert the video")
        while there:
            yield pixels
            there, pixels = video.read()
    finally:
        video.release()
