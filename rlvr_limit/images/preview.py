"""An image as small as a page can hold it."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence

from PIL import Image as pillow

from rlvr_limit.images.decoding import decode
from rlvr_limit.images.image import Image

LARGEST, SMALLEST = 512, 16
QUALITY = 80

MOST = 60_000
"""Characters of a problem's images together, where there is room for them."""


def previews(images: Sequence[Image], room: int) -> tuple[str, ...]:
    """The images of a problem, each as a data: URL, in at most `room` characters together."""
    return tuple(preview(image, min(room, MOST) // len(images)) for image in images)


@functools.lru_cache(maxsize=1024)
def preview(image: Image, most: int) -> str:
    """A data: URL with the image as a JPEG, its longer side halved from 512 pixels until it has at most `most`
    characters, or 16 pixels."""
    small = pillow.fromarray(decode(image.data, image.name))
    side = LARGEST
    while True:
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
        url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        if len(url) <= most or side <= SMALLEST:
            return url
        side //= 2
