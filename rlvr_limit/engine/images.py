"""Images of prompts as rows that stand in place of embeddings, each encoded once for all samples and prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rlvr_limit.engine.compiling import Ahead
from rlvr_limit.engine.programs import ProgramSpec, SeenPrompts, encode_images
from rlvr_limit.engine.requests import Request
from rlvr_limit.engine.scheduler import SequenceGroup
from rlvr_limit.models.decoder import ImageTokens, Params
from rlvr_limit.models.image_layout import (
    MIN_PATCHES,
    ImageBatch,
    PromptLayout,
    followed_by_text,
    image_batch,
    padded_length,
    prompt_layout,
)
from rlvr_limit.types import UserError

CALL_PATCHES = 1024
"""Of one call: smaller images are encoded several at a time."""
KEPT_ROWS = 2**16
"""Rows that are kept for other prompts; 0.5 GB of the released 7B model's."""


def request_layout(request: Request, spec: ProgramSpec) -> PromptLayout | None:
    """Where the images of a request stand; None: it has none. Raises UserError where that cannot be."""
    where, model = f"problem {request.problem_id}", spec.model
    if model.vision is None:
        if request.images:
            raise UserError(f"{where}: the prompt has images, but the model has no vision tower")
        return None
    grids, asked = [image.grid for image in request.images], len(request.prompt_ids) - request.drawn
    layout = prompt_layout(where, request.prompt_ids[:asked], grids, model.vision)
    return followed_by_text(layout, len(request.prompt_ids)) if request.images else None


class ImageEncoder:
    """The tower's side of an engine. Rows are kept on the host, under the digests of their images."""

    def __init__(self, spec: ProgramSpec, ahead: Ahead):
        self.spec, self.ahead = spec, ahead
        self.encoded = 0
        self._rows: OrderedDict[str, np.ndarray] = OrderedDict()

    def clear(self) -> None:
        """Forgets all rows: the weights are others."""
        self._rows.clear()

    def begin(self, params: Params, images: Iterable[Any]) -> None:
        """Begins to compile what encodes these images."""
        for patches in {self._padded(image) for image in images}:
            self.ahead.begin(("encode", patches), self._lowering(params, patches))

    def seen(self, params: Params, groups: Sequence[SequenceGroup], rows: int, length: int) -> SeenPrompts:
        """What prefill is sent of the images of up to `rows` prompts of at most `length` tokens."""
        self._encode(params, [image for group in groups for image in group.request.images])
        model = self.spec.model
        rows_MD = np.zeros((rows * length, model.width), model.dtype)
        token_RT, position_RT3 = np.zeros((rows, length), np.int32), np.zeros((rows, length, 3), np.int32)
        used = 0
        for r, group in enumerate(groups):
            layout, tokens = group.layout, len(group.request.prompt_ids)
            position_RT3[r, :tokens] = layout.position_T3
            for number, image in enumerate(group.request.images):
                mine = self._rows[image.digest]
                at = np.flatnonzero((layout.image_T == number) & (layout.token_T > 0))
                token_RT[r, at] = used + layout.token_T[at]
                rows_MD[used : used + len(mine)] = mine
                used += len(mine)
        if groups:
            self._forget()
        return SeenPrompts(ImageTokens(rows_MD, token_RT), position_RT3)

    def _encode(self, params: Params, images: list[Any]) -> None:
        """Rows of all images that have none yet."""
        new = {image.digest: image for image in images if image.digest not in self._rows}
        for digest in {image.digest for image in images} - new.keys():
            self._rows.move_to_end(digest)
        by_size: dict[int, list[Any]] = {}
        for image in new.values():
            by_size.setdefault(self._padded(image), []).append(image)
        for patches, members in by_size.items():
            self.ahead.wait(("encode", patches))
            count = images_a_call(patches)
            for start in range(0, len(members), count):
                part = members[start : start + count]
                rows_IMD = np.asarray(encode_images(params, self.spec, self._batch(part, patches)))
                for image, rows in zip(part, rows_IMD, strict=False):
                    self._rows[image.digest] = rows[: image.tokens].copy()
                self.encoded += len(part)

    def _forget(self) -> None:
        while len(self._rows) > 1 and sum(map(len, self._rows.values())) > KEPT_ROWS:
            self._rows.popitem(last=False)

    def _batch(self, images: Sequence[Any], patches: int) -> ImageBatch:
        shown = [(image.patches_PC, image.grid) for image in images]
        return image_batch(shown, self.spec.model.vision, patches, images_a_call(patches))

    def _lowering(self, params: Params, patches: int) -> Callable:
        return lambda: encode_images.lower(params, self.spec, self._batch([], patches))

    def _padded(self, image: Any) -> int:
        return padded_length(image.grid[1] * image.grid[2], MIN_PATCHES)


def images_a_call(patches: int) -> int:
    """Images that are encoded at a time, where each is padded to so many patches."""
    return max(1, CALL_PATCHES // patches)
