"""Images of a row, and their places in its question and among its prompt's tokens.

A question holds TAG where an image stands in it; without any, its images stand in front of it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlvr_limit.images import Image, read_image
from rlvr_limit.tasks.files import FileRow
from rlvr_limit.tasks.questions import MathRows, Question
from rlvr_limit.types import Problem, UserError

TAG = "<image>"
START, PAD, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
VISION = f"{START}{PAD}{END}"
"""An image in the text of a prompt; among its ids the pad stands once a token of the image."""

LONGEST_NAME = 1000
Shown = TypeVar("Shown", Question, Problem)
_TAG = re.compile(r"<image(\d*)>")
_WITH_SPACE = re.compile(r"\n?[ \t]*<image\d*>")


@dataclass(frozen=True)
class PictureRows(MathRows):
    """Rows of mathematics with images, in the first of these fields that a row has."""

    images: tuple[str, ...] = ("images", "image")
    needed: bool = True  # a row without image is refused
    tagged: bool = True  # tags are places; else they are dropped
    choices: str = ""  # rows in which this field is not empty are multiple choice, and left out

    def __call__(self, row: FileRow) -> Question | None:
        """The question, None for multiple choice. Raises UserError for what is missing, and for no readable image."""
        if self.choices and row.fields.get(self.choices):
            return None
        question = super().__call__(row)
        field = next((name for name in self.images if row.fields.get(name) not in (None, "", [])), "")
        if not field:
            if self.needed:
                fields = " or ".join(map(repr, self.images))
                raise UserError(f"{row.place}: problem {question.id}: no image in field {fields}")
            return question
        value = row.fields[field]
        listed = value if isinstance(value, list) else [value]
        images = tuple(_image(row, field, question.id, entry) for entry in listed)
        text = _placed(row, question.question, len(images)) if self.tagged else _without_tags(question.question)
        return dataclasses.replace(question, question=text, images=images)


def _image(row: FileRow, field: str, problem: str, value: Any) -> Image:
    """A file by its name, or its bytes: as such, as base64, or in the structure that the hub's Parquet files have."""
    if isinstance(value, dict) and value.get("bytes"):
        value = value["bytes"]
    elif isinstance(value, dict):
        value = value.get("path")
    where = f"{row.place}: problem {problem}: field {field!r}"
    if isinstance(value, bytes):
        return read_image(value, where)
    if not isinstance(value, str) or not value:
        raise row.refuse(field, value, "the name of an image file, nor its bytes")
    if value.startswith("data:") or len(value) > LONGEST_NAME:
        try:
            return read_image(base64.b64decode(value.partition(",")[2] or value, validate=True), where)
        except binascii.Error as error:
            raise UserError(f"{where}: no base64 ({error})") from error
    path = row.folder / value
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror})") from error
    return read_image(data, f"{row.place}: problem {problem}: {path}")


def _placed(row: FileRow, text: str, count: int) -> str:
    """The text with its tags alike, or without any where all of them lead."""
    numbers = _TAG.findall(text)
    if not numbers:
        return text
    if len(numbers) != count or any(n and int(n) != i for i, n in enumerate(numbers, 1)):
        raise UserError(f"{row.place}: tags {', '.join(map('<image{}>'.format, numbers))} for {count} images in order")
    text = _TAG.sub(TAG, text)
    rest = text.replace(TAG, "").strip()
    return rest if re.fullmatch(rf"(\s*{TAG})+\s*{re.escape(rest)}", text) else text


def _without_tags(text: str) -> str:
    return _WITH_SPACE.sub("", text).strip()


def swapped(items: Sequence[Shown]) -> list[Shown]:
    """Problems or questions, each with the images of another one of its benchmark that has as many, and other ones.

    All are moved by the same number of places, so that no two get the same. UserError where no number will do.
    """
    found = list(items)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault((item.id.rpartition("/")[0], len(item.images)), []).append(i)
    for places in (places for (_, count), places in groups.items() if count):
        images = [items[i].images for i in places]
        moved = ([*images[by:], *images[:by]] for by in range(1, len(images)))
        fits = (other for other in moved if all(mine != its for mine, its in zip(images, other, strict=True)))
        other = next(fits, None)
        if other is None:
            raise UserError(f"problem {items[places[0]].id}: swap_images finds no other images for it and its like")
        for i, its in zip(places, other, strict=True):
            found[i] = dataclasses.replace(items[i], images=its)
    return found


def with_images(question: str, count: int) -> str:
    """The question as it stands in a prompt: each image at its tag, or all in front on a line of their own."""
    if not count:
        return question
    return question.replace(TAG, VISION) if TAG in question else f"{VISION * count}\n{question}"


def with_pads(ids: Sequence[int], pad: int, images: Sequence[Image], where: str) -> tuple[int, ...]:
    """Token ids with each image's pad as often as the image has tokens. UserError where a text has pads of its own."""
    if ids.count(pad) != len(images):
        raise UserError(f"{where}: {ids.count(pad)} {PAD} for {len(images)} images; a question may not hold any")
    counts = iter([image.tokens for image in images])
    return tuple(token for i in ids for token in ([i] * next(counts) if i == pad else [i]))
