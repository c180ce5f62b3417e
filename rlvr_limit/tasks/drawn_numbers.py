"""Numbers drawn into a small image: the embedded task that a model must see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from rlvr_limit.images import Image, drawn_image

PATCH = 4
CELL = 2 * PATCH
"""Pixels of a side of the place of a digit: one token of the image."""

A_ROW = 2
"""Numbers side by side."""

DIGITS = (
    "###/#.#/#.#/#.#/###", ".#./##./.#./.#./###", "###/..#/###/#../###", "###/..#/###/..#/###", "#.#/#.#/###/..#/..#",
    "###/#../###/..#/###", "###/#../###/#.#/###", "###/..#/..#/.#./.#.", "###/#.#/###/#.#/###", "###/#.#/###/..#/###",
)  # fmt: skip
"""3 x 5 pixels each."""

LIGHTEST_PAPER, DARKEST_INK, NOISE = 80, 160, 24
"""Grey levels: paper is at most so light and ink at least, and each pixel is off by up to NOISE."""


def draw(numbers: Sequence[int], digits: int) -> Image:
    """An image of the numbers, right-aligned in `digits` cells each; they decide contrast, noise and where, within one
    pixel, each digit stands."""
    name = "-".join(map(str, numbers))
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    rows = -(-len(numbers) // A_ROW)
    ink_HW = np.zeros((rows * CELL, A_ROW * digits * CELL), bool)
    for i, number in enumerate(numbers):
        for at, digit in enumerate(f"{number:>{digits}}"):
            top, left = 1 + rng.integers(0, 2), 2 + rng.integers(0, 2)
            if digit != " ":
                shape = np.array([[sign == "#" for sign in line] for line in DIGITS[int(digit)].split("/")])
                y, x = i // A_ROW * CELL + top, (i % A_ROW * digits + at) * CELL + left
                ink_HW[y : y + 5, x : x + 3] = shape
    paper, ink = rng.integers(0, LIGHTEST_PAPER + 1), rng.integers(DARKEST_INK, 256)
    noise_HW = rng.integers(-NOISE, NOISE + 1, ink_HW.shape)
    grey_HW = np.clip(np.where(ink_HW, ink, paper) + noise_HW, 0, 255).astype(np.uint8)
    return drawn_image(np.repeat(grey_HW[:, :, None], 3, axis=2), PATCH, f"numbers {name}")
