"""A picture out of the body of a request that nobody vouches for."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from frames import blue_first
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow knows fifty, each a way in
# What Pillow raises for broken files, by plugin.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)

Image.init()  # not by the first two threads at once
Image.MAX_IMAGE_PIXELS = None  # the limit is our own


class BadPicture(Exception):  # noqa: N818 - the client's, not ours
    """Why a body is refused, and the HTTP status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def check_type(header: str) -> None:
    """Raises BadPicture if a request with this ``Content-Type`` has no picture as its body."""
    if header.split(";")[0].strip().lower() not in TYPES:
        raise BadPicture(415, f"send the picture itself as the body, with a Content-Type of {', '.join(TYPES)}")


def read_picture(body: bytes, megapixels: float) -> NDArray[np.uint8]:
    """(H, W, 3), blue first; of an animation the first picture.

    Its size is looked at before any of it is decoded.

    Raises:
        BadPicture: it is no picture, a broken one, or a larger one than ``megapixels``.
    """
    if not body:
        raise BadPicture(400, "the body is empty; send a picture")
    try:
        with Image.open(BytesIO(body), formats=_FORMATS) as image:
            if image.width * image.height > megapixels * 1e6:
                text = f"a picture of {image.width} × {image.height} pixels; {megapixels:g} million are the most"
                raise BadPicture(413, text)
            return blue_first(image)
    except UnidentifiedImageError:
        raise BadPicture(400, "the body is no picture; send JPEG, PNG, WebP or BMP") from None
    except _BROKEN as error:
        raise BadPicture(400, f"the picture is broken: {' '.join(str(error).split())}") from error
