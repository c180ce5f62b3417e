"""Image files to patches: equal to the released processor bit for bit, within limits, and refused in one line."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from rlvr_limit.images import PixelLimits, decoding, limits_of, read_image
from rlvr_limit.images.limits import resized
from rlvr_limit.types import UserError
from tests.support.image_files import animation, drawn, drawn_file, encoded, png_of_size

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "image_patches.json").read_text(encoding="utf-8"))
CLASS_ONLY = {"do_resize": True, "patch_size": 14}


def _is_small(row):
    return row[6] * row[7] < 400 and row[0] * row[1] < 100_000


@pytest.mark.parametrize(
    "rows",
    [
        [row for row in GOLDENS if _is_small(row)],
        pytest.param([row for row in GOLDENS if not _is_small(row)], marks=pytest.mark.slow),
    ],
    ids=["small", "large"],
)
def test_patches_of_drawn_sizes_are_those_of_the_released_processor_bit_for_bit(rows):
    assert len(rows) > 20
    for height, width, mode, least, most, *grid, sha256 in rows:
        image = read_image(drawn_file(height, width, mode), "drawn")
        image = dataclasses.replace(image, limits=PixelLimits(least, most))
        patches_PC = image.patches_PC
        assert (image.height, image.width, list(image.grid)) == (height, width, grid)
        assert patches_PC.dtype == np.float32 and patches_PC.shape == (4 * image.tokens, 1176)
        assert hashlib.sha256(patches_PC.tobytes()).hexdigest() == sha256, (height, width, mode)


def test_the_goldens_have_two_hundred_sizes_and_every_turn_of_the_rule():
    assert len(GOLDENS) == 200
    before = [round(h / 28) * round(w / 28) * 784 for h, w, *_ in GOLDENS]
    assert any(area > row[4] for area, row in zip(before, GOLDENS, strict=True))
    assert any(area < row[3] for area, row in zip(before, GOLDENS, strict=True))
    assert {row[2] for row in GOLDENS} == {"RGB", "RGBA", "L", "P"}


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (42, 14 * 5, (56, 56)),  # 1.5 and 2.5 blocks both go to the even 2
        (1, 200, (28, 812)),  # grows from the original sides, not from rounded ones
        (4000, 4000, (980, 980)),
        (20, 3990, (28, 3976)),  # 0.7 blocks high, just above it when shrunk
        (30, 5990, (28, 5992)),
    ],
)
def test_the_size_rule_rounds_to_even_and_scales_the_original_sides(height, width, expected):
    limits = PixelLimits(3136, 1_003_520)
    assert resized(height, width, limits, "x") == expected


def test_a_side_shrunk_below_a_block_stays_one_block():
    assert resized(30, 5990, PixelLimits(784, 50_000), "x") == (28, 3136)


def test_a_pixel_on_the_longest_edge_of_the_ratio_is_refused():
    assert resized(200, 1, PixelLimits(), "x")
    with pytest.raises(UserError, match=r"^row 3: 201 x 1 pixels; no side may be more than 200 times the other$"):
        resized(1, 201, PixelLimits(), "row 3")


def _model_folder(tmp_path, **said):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    return tmp_path


@pytest.mark.parametrize(
    ("said", "config", "expected"),
    [
        (CLASS_ONLY, (0, 0), (3136, 1_003_520)),
        ({"min_pixels": 3136, "max_pixels": 12_845_056}, (0, 0), (3136, 12_845_056)),
        ({"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}, (0, 0), (3136, 12_845_056)),
        ({"size": {"min_pixels": 6272, "max_pixels": 50_000}, "max_pixels": None}, (0, 0), (6272, 50_000)),
        ({"max_pixels": 90_000, "size": {"shortest_edge": 3136, "longest_edge": 1}}, (0, 0), (3136, 90_000)),
        ({"max_pixels": 90_000}, (0, 60_000), (3136, 60_000)),
        ({"max_pixels": 90_000}, (1000, 0), (1000, 90_000)),
    ],
)
def test_limits_are_the_configs_else_the_files_else_the_classs(tmp_path, said, config, expected):
    assert limits_of(_model_folder(tmp_path, **said), *config) == PixelLimits(*expected)
    assert limits_of(tmp_path / "nothing here", *config) == PixelLimits(config[0] or 3136, config[1] or 1_003_520)


@pytest.mark.parametrize(
    ("said", "config", "named"),
    [
        ({"patch_size": 16}, (0, 0), "patch_size: 16 is not 14"),
        ({"resample": 2}, (0, 0), "resample: 2 is not 3"),
        ({"image_mean": [0.5, 0.5, 0.5]}, (0, 0), "image_mean"),
        ({"do_rescale": False}, (0, 0), "do_rescale: False is not True"),
        ({"min_pixels": 5000, "max_pixels": 4000}, (0, 0), r"preprocessor_config.json: .* \(5000, 4000\)"),
        ({"max_pixels": "many"}, (0, 0), "many"),
        ({"size": 3}, (0, 0), "size"),
        ({}, (783, 0), r"config.images: .* \(783, 1003520\)"),
    ],
)
def test_another_processing_than_ours_is_refused_by_file_and_field(tmp_path, said, config, named):
    with pytest.raises(UserError, match=named):
        limits_of(_model_folder(tmp_path, **said), *config)


def test_what_is_transparent_is_laid_on_white():
    clear = encoded(pillow.new("RGBA", (30, 30), (255, 0, 0, 0)))
    half = encoded(pillow.new("LA", (30, 30), (0, 128)))
    palette = encoded(pillow.new("P", (30, 30), 0), transparency=0)
    assert (decoding.decode(clear, "x") == 255).all()
    assert (decoding.decode(half, "x") == 127).all()
    assert (decoding.decode(palette, "x") == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cameras_orientation_is_applied(kind):
    exif = pillow.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = read_image(encoded(drawn(20, 50), kind, exif=exif), "x")
    assert (image.height, image.width) == (50, 20)
    assert image.patches_PC.shape[0] == 4 * image.tokens


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no readable JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no readable JPEG"),
        (drawn_file()[:-200], "no readable JPEG.*OSError"),
        (encoded(drawn(64, 64), "JPEG")[:-300], "no readable JPEG.*truncated"),
        (png_of_size(8_000, 8_000), "8,000 x 8,000 pixels, more than 50,000,000"),
        (png_of_size(60_000, 60_000), "no readable JPEG.*DecompressionBombError"),
        (encoded(pillow.new("I;16", (30, 30))), "mode I;16 is not one of"),
        (animation([drawn(30, 30), drawn(30, 30, seed=1)], "GIF"), "2 frames"),
        (encoded(drawn(30, 30), "TIFF"), "no readable JPEG"),
        (encoded(drawn(30, 30), "EPS"), "no readable JPEG"),
    ],
    ids=["empty", "svg", "cut png", "cut jpeg", "large", "bomb", "16 bits", "animation", "tiff", "eps"],
)
def test_a_hostile_file_is_refused_in_one_line_that_names_it(data, said):
    with pytest.raises(UserError, match=re.compile(f"^problem 7: a.png: .*{said}")) as error:
        read_image(data, "problem 7: a.png")
    assert "\n" not in str(error.value)


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(decoding, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="more than 100"):
        read_image(drawn_file(), "x")


def test_pixels_are_never_decoded_of_a_size_that_is_refused(monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(UserError, match="pixels, more than"):
        read_image(png_of_size(8_000, 8_000), "x")


def test_damaged_files_are_refused_or_decoded_and_never_raise_anything_else():
    rng = np.random.default_rng(0)
    files = [encoded(drawn(20, 30), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")]
    refused = 0
    for turn in range(300):
        data = bytearray(files[turn % len(files)])
        for place in rng.integers(0, min(len(data), 120), 3):
            data[place] = rng.integers(0, 256)
        try:
            decoding.decode(bytes(data), "x")
        except UserError:
            refused += 1
    assert 50 < refused < 300


def test_the_digest_is_of_the_files_bytes_and_the_limits():
    image = read_image(drawn_file(), "a")
    assert image.digest == read_image(drawn_file(), "b").digest and image == read_image(drawn_file(), "b")
    others = [read_image(drawn_file(seed=1), "a"), dataclasses.replace(image, limits=PixelLimits(3136, 3136))]
    assert len({image.digest, *(other.digest for other in others)}) == 3
