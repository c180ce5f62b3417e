"""An image of a problem: its file's bytes, and on demand the patches that a vision tower is fed.

Shapes: H, W pixels of the resized image; N = (H/14)(W/14) patches; C = 3 * 2 * 14 * 14 values each; M = N/4 tokens.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as pillow

from rlvr_limit.images.decoding import decode
from rlvr_limit.images.limits import FRAMES, MEAN, MERGE, PATCH, STD, PixelLimits, resized

VERSION = "pillow-bicubic-1"
"""Of decoding and processing; with another one the same file is another image."""


@dataclass(frozen=True)
class Image:
    """One still image. Decoded pixels are never kept: 16,384 tokens of patches take 308 MB."""

    name: str = field(compare=False)  # where it came from, for lines of errors
    data: bytes = field(repr=False, compare=False)  # the file
    sha256: str  # of data
    height: int  # upright, before it is resized
    width: int
    limits: PixelLimits | None = PixelLimits()  # None: taken as large as it is
    patch: int = PATCH  # pixels of a side

    @property
    def digest(self) -> str:
        """What the tower sees: SHA-256 of the file's, the pixel limits and the version of the processing."""
        size = f"{self.limits.least} {self.limits.most}" if self.limits else f"as it is {self.patch}"
        seen = f"{self.sha256} {size} {VERSION}"
        return hashlib.sha256(seen.encode()).hexdigest()

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, H/14, W/14): frames, rows and columns of patches. UserError for a strip."""
        h, w = self.height, self.width
        if self.limits:
            h, w = resized(h, w, self.limits, self.name)
        return 1, h // self.patch, w // self.patch

    @property
    def tokens(self) -> int:
        """M."""
        _, rows, columns = self.grid
        return rows * columns // MERGE**2

    @property
    def patches_PC(self) -> np.ndarray:
        """[N, C] float32, bit for bit as by the Pillow backend of Qwen2VLImageProcessor; decoded at every access."""
        _, rows, columns = self.grid
        pixels_HWC = decode(self.data, self.name)
        if self.limits:
            size = columns * PATCH, rows * PATCH
            pixels_HWC = np.array(pillow.fromarray(pixels_HWC).resize(size, pillow.Resampling.BICUBIC))
        return patches(pixels_HWC, self.patch)


def read_image(data: bytes, name: str) -> Image:
    """The image in a file's bytes, decoded once to see that it can be. UserError, one line, beginning with name."""
    height, width, _ = decode(data, name).shape
    return Image(name, data, hashlib.sha256(data).hexdigest(), height, width)


def drawn_image(pixels_HWC: np.ndarray, patch: int, name: str) -> Image:
    """Pixels that were made here, [H, W, 3] uint8 with sides that are multiples of 2 * patch, taken as they are."""
    file = io.BytesIO()
    pillow.fromarray(pixels_HWC).save(file, "PNG")
    height, width, _ = pixels_HWC.shape
    # Of the pixels: another version of zlib packs them otherwise.
    digest = hashlib.sha256(repr(pixels_HWC.shape).encode() + pixels_HWC.tobytes()).hexdigest()
    return Image(name, file.getvalue(), digest, height, width, None, patch)


def patches(pixels_HWC: np.ndarray, patch: int) -> np.ndarray:
    """Pixels [H, W, 3] uint8, sides multiples of 2 * patch -> [N, 3 * 2 * patch * patch] float32.

    A row is (channel, time, y, x), the still image twice in time; rows by merge block, then by place in the block.
    """
    H, W, _ = pixels_HWC.shape
    # In float64 and then rounded, as NumPy's product with a Python number was when the processor was released.
    x_CHW = np.moveaxis((pixels_HWC.astype(np.float64) * (1 / 255)).astype(np.float32), -1, 0)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    blocks = ((x_CHW - mean) / std).reshape(3, H // patch // MERGE, MERGE, patch, W // patch // MERGE, MERGE, patch)
    rows = blocks.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
    twice = np.broadcast_to(rows, (*rows.shape[:5], FRAMES, patch, patch))
    return twice.reshape(H * W // patch**2, 3 * FRAMES * patch**2)
