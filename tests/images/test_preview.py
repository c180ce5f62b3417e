"""Images on a page: small enough, whatever they are."""

import base64
import io

from PIL import Image as pillow

from rlvr_limit.images import read_image
from rlvr_limit.images.preview import LARGEST, preview
from tests.support.image_files import drawn, encoded


def shown(url):
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return pillow.open(io.BytesIO(base64.b64decode(data)))


def test_a_preview_keeps_within_its_characters_and_the_images_shape():
    image = read_image(encoded(drawn(400, 800)), "x")
    sizes = {}
    for most in (10_000_000, 60_000, 8_000):
        url = preview(image, most)
        assert len(url) <= most
        sizes[most] = shown(url).size
    assert sizes[10_000_000] == (LARGEST, LARGEST // 2)
    assert all(width == 2 * height for width, height in sizes.values())
    assert sizes[60_000] > sizes[8_000]
    assert max(shown(preview(image, 0)).size) == 16


def test_a_small_image_is_not_enlarged_and_a_clear_one_is_white():
    image = read_image(encoded(pillow.new("RGBA", (30, 20), (0, 0, 0, 0))), "x")
    small = shown(preview(image, 60_000))
    assert small.size == (30, 20) and small.getpixel((5, 5)) == (255, 255, 255)
