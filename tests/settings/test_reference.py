"""docs/configs.md says what the dataclasses say."""

from __future__ import annotations

from rlvr_limit.settings import reference


def test_the_page_of_settings_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run python -m rlvr_limit.settings.reference"


def test_the_page_has_default_range_and_comment_of_a_field_and_names_every_group() -> None:
    page = reference.page()
    assert "| `top_p` | `1.0` | finite float, in (0, 1] | the likeliest tokens that have this" in page
    assert "| `top_p` | `None` | finite float or None, in (0, 1] | the likeliest" in page
    assert "| `start` | needed | str | the arm whose weights it starts from |" in page
    assert "### config.arms.NAME.rl.optimizer\n\nAs config.arms.NAME.pretrain.optimizer." in page
