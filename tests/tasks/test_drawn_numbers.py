"""Countdown's numbers in images: what is drawn can be read back, and is Countdown in all else."""

import dataclasses

import numpy as np
import pytest

from rlvr_limit.images.decoding import decode
from rlvr_limit.settings import CountdownConfig
from rlvr_limit.tasks import countdown
from rlvr_limit.tasks.drawn_numbers import CELL, DIGITS, PATCH, draw

CONFIG = CountdownConfig(
    numbers=4, high=20, targets=(24, 48), train_guess_max=0.03, eval_problems=16, train_problems=40
)
SHAPES = np.array([[[s == "#" for s in line] for line in digit.split("/")] for digit in DIGITS])


def read(image, count, digits):
    """The numbers in an image: in each cell the digit that fits best at one of four places, or none."""
    grey = decode(image.data, "x")[:, :, 0].astype(float)
    inked = grey > (grey.min() + grey.max()) / 2
    found = []
    for i in range(count):
        text = ""
        for at in range(digits):
            y, x = i // 2 * CELL, (i % 2 * digits + at) * CELL
            cell = inked[y : y + CELL, x : x + CELL]
            if not cell.any():
                continue
            fits = {
                d: max((cell[t : t + 5, v : v + 3] == shape).mean() for t in (1, 2) for v in (2, 3))
                for d, shape in enumerate(SHAPES)
            }
            text += str(max(fits, key=fits.get))
        found.append(int(text))
    return found


@pytest.mark.parametrize(("numbers", "digits"), [((1, 2, 3, 4), 2), ((8, 10, 19, 20), 2), ((5, 6, 7, 9, 9), 1)])
def test_what_is_drawn_can_be_read_back(numbers, digits):
    image = draw(numbers, digits)
    assert image.grid == (1, CELL * -(-len(numbers) // 2) // PATCH, 2 * digits * CELL // PATCH)
    assert image.tokens == 2 * digits * -(-len(numbers) // 2)
    assert image.patches_PC.shape == (4 * image.tokens, 3 * 2 * PATCH**2)
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
    assert same.prompt_ids.count(pad) == same.images[0].tokens == 8 and len(same.prompt_ids) == 13
    plain = countdown.tokenizer(CONFIG)
    assert words.vocab_size == plain.vocab_size + 3 and words.encode("24 = 3") == plain.encode("24 = 3")
