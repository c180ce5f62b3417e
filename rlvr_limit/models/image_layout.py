"""Where an image's patches and tokens stand: windows, positions, places in a prompt. NumPy alone.

Legend, beside the one of decoder.py: I images, N patches of one, C numbers of a patch; M tokens of an image, each of
merge x merge patches; W windows of S places. A grid (frames, rows, columns) counts patches, as processors have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rlvr_limit.types import UserError

Grid = tuple[int, int, int]

MIN_PATCHES = 32
"""The least number that patches of an image are padded to."""


@dataclass(frozen=True)
class VisionConfig:
    """The tower of Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923, sec. 2.1.1), and how the decoder takes what it gives.

    Hashable, as ModelConfig.
    """

    width: int
    layers: int
    heads: int
    ffn_width: int
    full_layers: tuple[int, ...]  # that attend to the whole image; the others to their window
    image_token: int  # stands in a prompt once for each token of an image
    rope_sections: tuple[int, int, int]  # frequencies of the decoder that turn by frame, by row and by column
    window: int = 112  # pixels of a side
    patch: int = 14  # likewise
    merge: int = 2  # patches of a side that become one token
    frames: int = 2  # of a patch; an image is there as often
    channels: int = 3

    @property
    def patch_size(self) -> int:
        """C."""
        return self.channels * self.frames * self.patch**2

    @property
    def window_side(self) -> int:
        """Tokens."""
        return self.window // self.patch // self.merge


class ImageBatch(NamedTuple):
    """Images whose patches are padded to one number, and what the tower must know of where they stand."""

    patches_INC: np.ndarray
    position_IN2: np.ndarray  # row and column
    length_I: np.ndarray  # patches that count
    place_IN: np.ndarray  # of a patch, among those of all windows
    patch_IW: np.ndarray  # the patch at each place, window by window
    length_IW: np.ndarray  # patches of each window


class SeenRows(NamedTuple):
    """What rows of tokens see, [B, T]."""

    images: ImageBatch | None  # None: with_images is to follow
    image_BT: np.ndarray  # of a token, its place among the images
    token_BT: np.ndarray  # its number in that image, from 1; 0: text
    position_BT3: np.ndarray  # (frame, row, column) by which it is rotated
    delta_B: np.ndarray  # see PromptLayout


class PromptLayout(NamedTuple):
    """What the decoder must know of a prompt with images; fields as those of SeenRows."""

    image_T: np.ndarray
    token_T: np.ndarray
    position_T3: np.ndarray
    delta: int  # what stands behind the prompt has this much less than its place as position


def image_tokens(grid: Grid, config: VisionConfig) -> int:
    """M of an image."""
    return grid[0] * grid[1] * grid[2] // config.merge**2


def padded_length(length: int, shortest: int) -> int:
    """0, or the first of shortest, 1.5 shortest, 2 shortest, 3 shortest, 4 shortest, ... that is not less."""
    size = shortest
    while size < length:
        size = size * 3 // 2 if size * 3 // 2 >= length else size * 2
    return size if length else 0


def window_count(patches: int, config: VisionConfig) -> int:
    """Windows that any image of so many patches has at most: a strip of one token's height has them all."""
    return -(-patches // (config.merge**2 * config.window_side))


def image_batch(
    images: Sequence[tuple[np.ndarray, Grid]], config: VisionConfig, patches: int, count: int
) -> ImageBatch:
    """(patches [N, C] in the processor's order, grid) of up to `count` images as one batch of so many, of that many
    patches each."""
    windows, side = window_count(patches, config), config.window_side
    batch = ImageBatch(
        np.zeros((count, patches, config.patch_size), np.float32),
        np.zeros((count, patches, 2), np.int32),
        np.zeros(count, np.int32),
        np.zeros((count, patches), np.int32),
        np.zeros((count, windows * side**2 * config.merge**2), np.int32),
        np.zeros((count, windows), np.int32),
    )
    for i, (patches_NC, grid) in enumerate(images):
        n = len(patches_NC)
        position_N2 = patch_positions(grid, config)
        number_N = window_numbers(position_N2, grid, config)
        order = np.argsort(number_N, kind="stable")
        sizes = np.bincount(number_N, minlength=windows)
        inside = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        place = number_N[order] * side**2 * config.merge**2 + inside
        batch.patches_INC[i, :n], batch.position_IN2[i, :n], batch.length_I[i] = patches_NC, position_N2, n
        batch.place_IN[i, order], batch.patch_IW[i, place], batch.length_IW[i] = place, order, sizes
    return batch


def patch_positions(grid: Grid, config: VisionConfig) -> np.ndarray:
    """(row, column) of each patch in the processor's order, [N, 2]: the patches of a token stand side by side."""
    _, rows, columns = grid
    m = config.merge
    position = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    position = position.reshape(rows // m, m, columns // m, m, 2).swapaxes(1, 2)
    return position.reshape(-1, 2).astype(np.int32)


def window_numbers(position_N2: np.ndarray, grid: Grid, config: VisionConfig) -> np.ndarray:
    """The window of each patch. Windows begin at the upper left; those at the other edges may be smaller."""
    side = config.window_side * config.merge
    return position_N2[:, 0] // side * -(-grid[2] // side) + position_N2[:, 1] // side


def prompt_layout(where: str, ids: Sequence[int], grids: Sequence[Grid], config: VisionConfig) -> PromptLayout:
    """M-RoPE (Wang et al. 2024, arXiv 2409.12191, sec. 2.1): text counts on in all three; an image's tokens stand at
    its rows and columns from where the text before it ends, and what follows goes on behind the larger side.

    Raises UserError where the image tokens are not those of the images.
    """
    image_T, token_T = np.zeros((2, len(ids)), np.int32)
    position_T3 = np.zeros((len(ids), 3), np.int32)
    at = counter = used = 0
    while at < len(ids):
        if ids[at] != config.image_token:
            position_T3[at] = counter
            at, counter = at + 1, counter + 1
            continue
        m = image_tokens(grids[used], config) if used < len(grids) else 0
        if not m or any(x != config.image_token for x in ids[at : at + m]) or at + m > len(ids):
            break
        _, rows, columns = (side // config.merge for side in grids[used])
        row, column = np.divmod(np.arange(m), columns)
        position_T3[at : at + m] = counter + np.stack([np.zeros(m, int), row, column], axis=1)
        image_T[at : at + m], token_T[at : at + m] = used, 1 + np.arange(m)
        at, used, counter = at + m, used + 1, counter + max(rows, columns)
    if at < len(ids) or used < len(grids):
        wanted = [image_tokens(grid, config) for grid in grids]
        raise UserError(
            f"{where}: the prompt has {sum(x == config.image_token for x in ids)} image tokens, which are not those "
            f"of its {len(grids)} images, {wanted}"
        )
    return PromptLayout(image_T, token_T, position_T3, counter - len(ids))


def followed_by_text(layout: PromptLayout, length: int) -> PromptLayout:
    """The layout of so many tokens, of which those behind the prompt are text, or of the prompt's first ones."""
    start = len(layout.token_T)
    behind = np.arange(start, max(length, start), dtype=np.int32)
    none = np.zeros_like(behind)
    return PromptLayout(
        np.concatenate([layout.image_T, none])[:length],
        np.concatenate([layout.token_T, none])[:length],
        np.concatenate([layout.position_T3, np.repeat(behind[:, None] + layout.delta, 3, axis=1)])[:length],
        layout.delta,
    )


def seen_rows(
    prompts: Sequence[tuple[Sequence[int], Sequence[Any]]], config: VisionConfig | None, length: int
) -> tuple[SeenRows | None, list[Any]]:
    """(what rows see that begin with these tokens and images of rlvr_limit.images and go on with text, or are cut off;
    the images, equal ones once); None where no prompt has any."""
    shown = {image.digest: image for _, mine in prompts for image in mine}
    if config is None or not (shown or any(config.image_token in ids for ids, _ in prompts)):
        return None, []
    numbers = {digest: i for i, digest in enumerate(shown)}
    rows = len(prompts)
    image_BT, token_BT = np.zeros((2, rows, length), np.int32)
    position_BT3, delta_B = np.zeros((rows, length, 3), np.int32), np.zeros(rows, np.int32)
    for b, (ids, mine) in enumerate(prompts):
        layout = prompt_layout(f"row {b}", ids, [image.grid for image in mine], config)
        image_T, token_BT[b], position_BT3[b], delta_B[b] = followed_by_text(layout, length)
        image_BT[b] = np.array([numbers[image.digest] for image in mine] or [0], np.int32)[image_T]
    return SeenRows(None, image_BT, token_BT, position_BT3, delta_B), list(shown.values())


def with_images(seen: Sequence[SeenRows], shown: Sequence[Any], config: VisionConfig) -> list[SeenRows]:
    """Each of them with the images that it sees, which are padded to one size and to one number for all."""
    used = [np.unique(x.image_BT[x.token_BT > 0], return_inverse=True) for x in seen]
    patches = padded_length(max(x.grid[1] * x.grid[2] for x in shown), MIN_PATCHES)
    count = padded_length(max(1, *(len(numbers) for numbers, _ in used)), 1)
    found = []
    for rows, (numbers, place) in zip(seen, used, strict=True):
        image_BT = np.zeros_like(rows.image_BT)
        image_BT[rows.token_BT > 0] = place
        arrays = [(shown[i].patches_PC, shown[i].grid) for i in numbers]
        found.append(rows._replace(images=image_batch(arrays, config, patches, count), image_BT=image_BT))
    return found
