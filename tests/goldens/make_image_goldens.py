"""Makes image_patches.json beside it: what the Pillow backend of Qwen2-VL's processor makes of 200 drawn sizes.

Run it where transformers (5.24.0 it was) and Pillow are installed: python -m tests.goldens.make_image_goldens
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.support.image_files import drawn_file

GOLDEN = Path(__file__).with_name("image_patches.json")
MODES = ("RGB", "RGBA", "L", "P")
LIMITS = ((3_136, 1_003_520), (3_136, 12_845_056), (12_544, 40_000))
"""The class's, the hub file's, and narrow ones that grow and shrink most images."""


def main() -> None:
    """One line a size: height, width, mode, limits, grid and SHA-256 of the patches' bytes."""
    rng = np.random.default_rng(23)
    rows: list[list] = []
    while len(rows) < 200:
        height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(1500), 2)))
        if max(height, width) > 200 * min(height, width):
            continue
        mode, limits = MODES[len(rows) % len(MODES)], LIMITS[len(rows) % len(LIMITS)]
        processor = Qwen2VLImageProcessorPil(min_pixels=limits[0], max_pixels=limits[1])
        image = Image.open(io.BytesIO(drawn_file(height, width, mode)))
        made = processor(images=image, return_tensors="np")
        digest = hashlib.sha256(np.asarray(made["pixel_values"]).tobytes()).hexdigest()
        rows.append([height, width, mode, *limits, *map(int, made["image_grid_thw"][0]), digest])
    GOLDEN.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
