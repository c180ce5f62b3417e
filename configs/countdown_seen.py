"""Countdown, seen: the numbers are drawn into small images, and the base, GRPO and a control must read them.

Table 1's visual domain in small. Run it: python main.py --config=configs/countdown_seen.py
Hardware: 2 CPU cores, 6 to 7 minutes when quiet. Expected, from three seeds (docs/results.md): the base uses every
drawn number once in 89 of 100 answers, as the base of configs/countdown.py does in text; GRPO is above it at k = 1 and
below it from k = 17 to 20 on; shown the images of other problems the base solves none.

A tower of two blocks, one within each number and one over the whole image, comes before countdown.py's decoder; each
number is a token, as it is in text. Numbers, targets, demonstrations and verifier are countdown.py's.
"""

from ml_collections import ConfigDict

from configs import countdown


def get_config() -> ConfigDict:
    """Base, GRPO, and the base shown other images."""
    config = countdown.get_config()
    config.name = "countdown_seen"
    config.title = "Countdown, seen: base against GRPO"
    config.task.seen = True
    config.model.vision = {
        "width": 64,
        "layers": 2,
        "heads": 4,
        "ffn_width": 128,
        "full_layers": (1,),
        "rope_sections": (4, 6, 6),
        "window": 16,
        "patch": 8,
    }
    config.engine.max_prompt_len = 9
    config.score.tokens = 13_824
    for name in ("distilled", "control"):
        del config.arms[name]
    config.arms.other_images = {
        "label": "base, other images",
        "group": "control",
        "weights_of": "base",
        "swap_images": True,
    }
    config.allow_differ = ("images", "template")
    return config
