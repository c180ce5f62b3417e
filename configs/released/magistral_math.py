"""Mistral-Medium-3-2505 against Magistral-Medium-2506 behind their API (Yue et al. 2025, v5, Fig. 9).

Run it: MISTRAL_API_KEY=... python main.py --config=configs/released/magistral_math.py [--config.data_dir=FOLDER]
Hardware: none; the weights were never published. Mistral's documentation says that magistral-medium-2506 was retired on
2025-11-30, so that this runs only where another endpoint of the same models is at hand: config.arms.NAME.endpoint.url
and .model. Its name, price (US dollars) and context of 40k are from there; mistral-medium-2505 was seen in lists of
others only, and its price is left out.
Expected: at k = 1 Magistral solves about 7 more problems of AIME24 and 8 more of AIME25; the gap closes with k.

Not known, and chosen here: the paper's number of samples, its temperature and top-p (here those of its other figures),
and the words of its prompt (v5, Fig. 29, the same for both arms; here "chat").
"""

from ml_collections import ConfigDict

from configs.lib import base


def get_config() -> ConfigDict:
    """Both arms by the same words and limits; what a prompt leaves of Magistral's 40k of context is not known here."""
    config = base.released(
        "magistral_math", "Mistral Medium 3: base against Magistral", None, {"aime24": 64, "aime25": 64}
    )
    config.sampling.max_tokens = 38_000
    config.arms.base = _arm("Mistral-Medium-3-2505", "base", "mistral-medium-2505", {})
    prices = {"prompt_price": 2.0, "answer_price": 5.0}
    config.arms.rl = _arm("Magistral-Medium-2506", "rl", "magistral-medium-2506", prices)
    return config


def _arm(label: str, group: str, model: str, prices: dict) -> dict:
    endpoint = {"url": "https://api.mistral.ai/v1", "model": model, "key": "MISTRAL_API_KEY", **prices}
    return {"label": label, "group": group, "prompt": "chat", "endpoint": endpoint}
