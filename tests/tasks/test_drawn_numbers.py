"""Countdown's numbers in images: what is drawn can be read back, and is Countdown in all else."""

import dataclasses

import numpy as np
import pytest

from rlvr_limit.images.decoding import decode
from rlvr_limit.settings import CountdownConfig
from rlvr_limit.tasks import countdown
from rlvr_limit.tasks.drawn_numbers import CELL, DIGITS, SCALE, draw, side_of

CONFIG = CountdownConfig(
    numbers=4, high=12, targets=(24, 48), train_guess_max=0.03, eval_problems=16, train_problems=40
)
DOTS = np.array([[[s == "#" for s in line] for line in digit.split("/")] for digit in DIGITS])
SHAPES = DOTS.repeat(SCALE, 1).repeat(SCALE, 2)


def read(image, count, digits):
    """The numbers in an image: in each cell the digit that fits best at one of four places, or none."""
    grey = decode(image.data, "x")[:, :, 0].astype(float)
    inked, side, found = grey > (grey.min() + grey.max()) / 2, side_of(digits), []
    top, (high, wide) = (side - 5 * SCALE) // 2, SHAPES.shape[1:]
    for i in range(count):
        text = ""
        for at in range(side // CELL):
            y, x = i // 2 * side, i % 2 * side + at * CELL
            cell = inked[y : y + side, x : x + CELL]
            if not cell.any():
                continue
            fits = {
                d: max((cell[t : t + high, v : v + wide] == shape).mean() for t in (top, top + 1) for v in (1, 2))
                for d, shape in enumerate(SHAPES)
            }
            text += str(max(fits, key=fits.get))
        found.append(int(text))
    return found


@pytest.mark.parametrize(
    ("numbers", "digits"), [((1, 2, 3, 4), 2), ((8, 10, 19, 20), 2), ((5, 6, 7, 9, 9), 1), ((7, 20, 113), 3)]
)
def test_what_is_drawn_can_be_read_back(numbers, digits):
    image = draw(numbers, digits)
    rows = -(-len(numbers) // 2)
    assert image.grid == (1, 2 * rows, 4) and image.tokens == 2 * rows
    assert image.patches_PC.shape == (8 * rows, 3 * 2 * (side_of(digits) // 2) ** 2)
    assert read(image, len(numbers), digits) == list(numbers)


def test_every_training_image_can_be_read_and_no_two_sets_have_the_same():
    seen = dataclasses.replace(CONFIG, seen=True)
    _, training = countdown.problems(countdown.Game(seen), 0)
    for problem in training:
        assert read(problem.images[0], 4, 2) == list(problem.answer.numbers), problem.id
    images = {problem.answer.numbers: problem.images[0].digest for problem in training}
    assert len(set(images.values())) == len(images)


def test_problems_that_are_seen_are_those_that_are_told_but_for_the_prompt():
    told, seen = (countdown.problems(countdown.Game(c), 7) for c in (CONFIG, dataclasses.replace(CONFIG, seen=True)))
    assert [p.id for half in told for p in half] == [p.id for half in seen for p in half]
    first, same = told[0][0], seen[0][0]
    assert (first.answer, first.guess_rate, first.images) == (same.answer, same.guess_rate, ())
    words = countdown.tokenizer(dataclasses.replace(CONFIG, seen=True))
    pad = words.token_id("<|image_pad|>")
    assert same.prompt == f"<|vision_start|> <|image_pad|> <|vision_end|> -> {same.answer.target} :"
    assert same.prompt_ids.count(pad) == same.images[0].tokens == 4 and len(same.prompt_ids) == 9
    plain = countdown.tokenizer(CONFIG)
    assert words.vocab_size == plain.vocab_size + 3 and words.encode("24 = 3") == plain.encode("24 = 3")
