"""Bytes of an image file -> its pixels, by Pillow under limits. What is strange is refused in one line.

As in transformers 5: what is transparent is laid on white, and the orientation that a camera noted is applied.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image as pillow
from PIL import ImageOps

from rlvr_limit.types import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""8 bits a channel. convert("RGB") would cut all others off at 255, or fail."""

MOST_BYTES = 1 << 26
MOST_PIXELS = 50_000_000
"""150 MB of RGB; the released processor keeps 12.8 million of them at most."""

# What Pillow's readers raise on broken files.
_BROKEN = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, struct.error, zlib.error)


def decode(data: bytes, where: str) -> np.ndarray:
    """The image upright, [H, W, 3] uint8. UserError, which begins with where, for what is none or not allowed."""
    if len(data) > MOST_BYTES:
        raise UserError(f"{where}: {len(data):,} bytes, more than {MOST_BYTES:,}")
    try:
        with warnings.catch_warnings(action="ignore"), pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, where)
            return _rgb(ImageOps.exif_transpose(image))
    except (*_BROKEN, pillow.DecompressionBombError) as error:
        said = " ".join(str(error).split()).replace("<_io.BytesIO object", "<bytes")[:120]
        raise UserError(f"{where}: no readable {', '.join(FORMATS)} ({type(error).__name__}: {said})") from error


def _check(image: pillow.Image, where: str) -> None:
    """What the head of a file says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UserError(f"{where}: {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
    if image.mode not in MODES:
        raise UserError(f"{where}: mode {image.mode} is not one of {', '.join(MODES)}; save it with 8 bits a channel")
    # A phone's MPO has a picture for each eye, or a preview behind the picture.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{where}: {image.n_frames} frames; give a still image")


def _rgb(image: pillow.Image) -> np.ndarray:
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.array(image.convert("RGB"))
