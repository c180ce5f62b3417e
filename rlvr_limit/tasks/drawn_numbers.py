"""Numbers drawn into a small image: the embedded task that a model must see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from rlvr_limit.images import Image, drawn_image

CELL = 8
"""Pixels of the width of a digit's place."""

SCALE = 2
"""Pixels of a side of each dot of a digit."""

A_ROW = 2
"""Numbers side by side."""

DIGITS = (
    "###/#.#/#.#/#.#/###", ".#./##./.#./.#./###", "###/..#/###/#../###", "###/..#/###/..#/###", "#.#/#.#/###/..#/..#",
    "###/#../###/..#/###", "###/#../###/#.#/###", "###/..#/..#/.#./.#.", "###/#.#/###/#.#/###", "###/#.#/###/..#/###",
)  # fmt: skip
"""3 x 5 dots each."""

LIGHTEST_PAPER, DARKEST_INK, NOISE = 80, 160, 24
"""Grey levels: paper is at most so light and ink at least, and each pixel is off by up to NOISE."""


def side_of(digits: int) -> int:
    """Pixels of a side of the square that a number of so many digits stands in: 2 x 2 patches, a token of the image."""
    return CELL * max(digits, 2)


def draw(numbers: Sequence[int], digits: int) -> Image:
    """An image of the numbers, each right-aligned in a square for `digits` of them; they decide contrast, noise and
    where, within one pixel, each digit stands."""
    name = "-".join(map(str, numbers))
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    side, rows = side_of(digits), -(-len(numbers) // A_ROW)
    ink_HW = np.zeros((rows * side, A_ROW * side), bool)
    for i, number in enumerate(numbers):
        for at, digit in enumerate(f"{number:>{side // CELL}}"):
            top, left = (side - 5 * SCALE) // 2 + rng.integers(0, 2), (CELL - 3 * SCALE) // 2 + rng.integers(0, 2)
            if digit != " ":
                dots = np.array([[sign == "#" for sign in line] for line in DIGITS[int(digit)].split("/")])
                y, x = i // A_ROW * side + top, i % A_ROW * side + at * CELL + left
                ink_HW[y : y + 5 * SCALE, x : x + 3 * SCALE] = dots.repeat(SCALE, 0).repeat(SCALE, 1)
    paper, ink = rng.integers(0, LIGHTEST_PAPER + 1), rng.integers(DARKEST_INK, 256)
    noise_HW = rng.integers(-NOISE, NOISE + 1, ink_HW.shape)
    grey_HW = np.clip(np.where(ink_HW, ink, paper) + noise_HW, 0, 255).astype(np.uint8)
    return drawn_image(np.repeat(grey_HW[:, :, None], 3, axis=2), side // 2, f"numbers {name}")
