"""Images of problems: how rows give them, where they stand in prompts, and what is refused with its place."""

import base64
import dataclasses
import hashlib
import json

import pyarrow
import pyarrow.parquet
import pytest

from rlvr_limit.images import PixelLimits, read_image
from rlvr_limit.tasks import benchmarks, pictures
from rlvr_limit.tasks.benchmarks import BY_NAME
from rlvr_limit.tasks.prompts import template
from rlvr_limit.types import Problem, UserError
from tests.support.image_files import drawn_file

A, B = drawn_file(seed=1), drawn_file(seed=2)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, data in {"a.png": A, "b.png": B, "cut.png": A[:-300]}.items():
        (tmp_path / "images" / name).write_bytes(data)
    return tmp_path


def write(folder, rows, name="mine.jsonl"):
    path = folder / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(path):
    return benchmarks.load(path)[0]


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_an_image_is_a_file_beside_the_rows_or_bytes_in_any_writing(folder):
    text = base64.b64encode(A).decode()
    assert len(text) > pictures.LONGEST_NAME
    written = ["images/a.png", str(folder / "images" / "a.png"), text, f"data:image/png;base64,{text}"]
    written += [{"path": "images/a.png"}, {"bytes": text}, ["images/a.png"]]
    found = load(write(folder, [{"problem": f"{i}?", "image": v, "answer": "1"} for i, v in enumerate(written)]))
    assert [[image.sha256 for image in q.images] for q in found] == [[sha(A)]] * len(written)
    rows = [
        {"problem": "0?", "images": [{"bytes": A, "path": "x"}, {"bytes": None, "path": "images/b.png"}], "answer": "1"}
    ]
    (both,) = load(write(folder, rows, "mine.parquet"))
    assert [image.sha256 for image in both.images] == [sha(A), sha(B)]


def test_a_row_without_an_image_is_a_question_of_text(folder):
    rows = [{"problem": "<image>?", "answer": "1"}, {"problem": "b", "image": None, "answer": "1"}]
    found = load(write(folder, rows))
    assert [(q.question, q.images) for q in found] == [("<image>?", ()), ("b", ())]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("images/none.png", r"images/none.png cannot be read \(No such file"),
        ("images", r"cannot be read \(Is a directory"),
        ("images/cut.png", "images/cut.png: no readable JPEG"),
        ("data:image/png;base64,????", "no base64"),
        ("data:image/png;base64,AAAA", "no readable JPEG"),
        (5, "5 is not the name of an image file"),
        ({"path": None}, "None is not the name of an image file"),
        ([{"bytes": None}], "None is not the name of an image file"),
    ],
)
def test_what_is_no_image_is_refused_with_row_and_problem(folder, value, said):
    path = write(folder, [{"problem": "a", "answer": "1"}, {"problem": "b", "image": value, "answer": "1"}])
    with pytest.raises(UserError, match=rf"mine.jsonl:2: .*{said}"):
        load(path)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What?", "What?"),
        ("<image>\n<image>What?", "What?"),
        ("<image1> <image2>\nWhat?", "What?"),
        ("Is <image1> in <image2>?", "Is <image> in <image>?"),
        ("<image>Is it in <image>?", "<image>Is it in <image>?"),
    ],
)
def test_tags_are_places_and_those_in_front_are_none(folder, text, question):
    rows = [{"problem": text, "images": ["images/a.png", "images/b.png"], "answer": "1"}]
    assert load(write(folder, rows))[0].question == question


@pytest.mark.parametrize("text", ["<image>What?", "<image><image><image>?", "<image2> or <image1>?"])
def test_tags_that_are_not_as_many_as_images_in_order_are_refused(folder, text):
    rows = [{"problem": text, "images": ["images/a.png", "images/b.png"], "answer": "1"}]
    with pytest.raises(UserError, match=r"mine.jsonl:1: tags .* for 2 images in order"):
        load(write(folder, rows))


def test_equal_questions_with_other_images_are_two_problems_and_the_same_image_twice_is_one(folder):
    rows = [{"problem": "What?", "image": f"images/{name}.png", "answer": "1"} for name in "ab"]
    found, notes = benchmarks.load(write(folder, [*rows, rows[0]]))
    assert [q.id for q in found] == ["mine/0", "mine/1"]
    assert "1 of 3 rows repeat another one" in notes[-1]
    with pytest.raises(UserError, match=r"mine.jsonl:3: its question is that of .*:1 too, but they differ: 'What\?'"):
        load(write(folder, [*rows, rows[0] | {"answer": "2"}]))


def test_a_prompt_shows_an_image_once_and_its_ids_once_a_token():
    images = [
        dataclasses.replace(read_image(data, "x"), limits=PixelLimits(784, least))
        for data, least in ((A, 784), (B, 9999))
    ]
    assert [image.tokens for image in images] == [1, 1]
    images[1] = dataclasses.replace(images[1], limits=PixelLimits(6000, 9999))
    assert images[1].tokens == 12
    assert pictures.with_pads([1, 9, 2, 9, 3], 9, images, "p") == (1, 9, 2, *[9] * 12, 3)
    with pytest.raises(UserError, match=r"^problem m/1: 2 <\|image_pad\|> for 1 images"):
        pictures.with_pads([9, 1, 9], 9, images[:1], "problem m/1")
    v = pictures.VISION
    assert pictures.with_images("What?", 2) == f"{v}{v}\nWhat?"
    assert pictures.with_images("Is <image> in <image>?", 2) == f"Is {v} in {v}?"
    assert pictures.with_images("<image>?", 0) == "<image>?"


def test_the_papers_template_has_the_published_bytes():
    whole = template("visual").text.replace("{question}", pictures.with_images("{question}", 1))
    assert sha(whole.encode()).startswith("1002e1a02458ca67")


def test_images_are_part_of_what_names_a_prompt():
    image = read_image(A, "x")
    text = Problem("p", "q", "prompt", (), "1")
    seen = dataclasses.replace(text, images=(image,))
    other = dataclasses.replace(text, images=(read_image(B, "x"),))
    smaller = dataclasses.replace(text, images=(dataclasses.replace(image, limits=PixelLimits(3136, 3136)),))
    assert text.identity == "prompt"
    assert len({p.identity for p in (text, seen, other, smaller)}) == 4


VISTA = {
    "question": "How many?", "image": "images/a.png", "choices": None, "unit": None, "precision": None,
    "answer": "3", "question_type": "free_form", "answer_type": "integer", "pid": "7",
}  # fmt: skip
VISION = {
    "id": "59",
    "question": "<image1>\nA cube:\n<image2>\nOpposite to <image3>?\n<image4>",
    "options": [],
    "answer": "C",
}


@pytest.mark.parametrize(
    ("name", "file", "rows", "expected"),
    [
        (
            "mathvista",
            "mathvista_testmini.json",
            {"7": VISTA, "8": VISTA | {"choices": ["1", "3"], "pid": "8"}},
            ("mathvista/7", "How many?", "3"),
        ),
        (
            "mathvista",
            "mathvista/testmini-00000-of-00001.parquet",
            [VISTA | {"decoded_image": {"bytes": A, "path": None}, "image": "images/none.jpg"}],
            ("mathvista/7", "How many?", "3"),
        ),
        (
            "mathvision",
            "mathvision_testmini.jsonl",
            [VISION | {"image": "images/a.png"}, VISION | {"id": "6", "options": ["A", "B"]}],
            ("mathvision/59", "A cube:\nOpposite to?", "C"),
        ),
        (
            "geometry3k",
            "geometry3k/test-00000-of-00001.parquet",
            [{"images": [{"bytes": A, "path": None}], "problem": "<image>Find x.", "answer": r"2 \sqrt { 3 }"}],
            ("geometry3k/0", "Find x.", r"2 \sqrt { 3 }"),
        ),
    ],
)
def test_official_layouts_become_questions_with_one_image_and_no_multiple_choice(folder, name, file, rows, expected):
    (folder / file).parent.mkdir(exist_ok=True)
    write(folder, rows, file)
    ((found,), notes) = benchmarks.load(name, folder, allow_rows=BY_NAME)
    assert (found.id, found.question, found.answer) == expected
    assert [image.sha256 for image in found.images] == [sha(A)]
    assert (BY_NAME[name].note in notes) == (name != "geometry3k")


def test_a_row_of_a_visual_benchmark_without_an_image_is_refused(folder):
    for row in ({}, {"image": None}, {"images": []}):
        write(folder, [{"problem": "Find x.", "answer": "1"} | row], "geometry3k.jsonl")
        with pytest.raises(UserError, match="geometry3k.jsonl:1: problem 0: no image in field 'images' or 'image'"):
            benchmarks.load("geometry3k", folder, allow_rows=BY_NAME)


def asked(name, *seeds):
    images = tuple(read_image(drawn_file(seed=seed), "x") for seed in seeds)
    return Problem(name, "q", "p", (), "1", images=images)


def test_swapped_images_are_those_of_another_problem_of_the_benchmark_and_no_two_alike():
    items = [asked("a/0", 1), asked("b/0", 9), asked("a/1", 2), asked("a/2"), asked("b/1", 8), asked("a/3", 3)]
    found = pictures.swapped(items)
    assert [p.id for p in found] == [p.id for p in items]
    assert [p.images for p in found] == [items[i].images for i in (2, 4, 5, 3, 1, 0)]


def test_a_swap_moves_everyone_so_far_that_all_see_other_images():
    items = [asked(f"a/{i}", seed) for i, seed in enumerate((1, 1, 2, 2))]
    assert [p.images for p in pictures.swapped(items)] == [items[i].images for i in (2, 3, 0, 1)]
    with pytest.raises(UserError, match="problem a/0: swap_images finds no other images"):
        pictures.swapped([asked("a/0", 1), asked("a/1", 1), asked("a/2", 2)])
