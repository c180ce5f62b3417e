"""Image files that tests make: drawn pixels in any format, hostile heads, and rows that hold them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def drawn(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise of a seed."""
    rng = np.random.default_rng([seed, height, width])
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn_file(height: int = 30, width: int = 40, mode: str = "RGB", seed: int = 0) -> bytes:
    """A PNG of noise."""
    return encoded(drawn(height, width, mode, seed))


def animation(frames: Sequence[Image.Image], kind: str) -> bytes:
    """A file of several frames."""
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of some bytes that says to be as large as asked, with one row of zeros compressed in it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
