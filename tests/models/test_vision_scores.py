"""Answers to prompts with images, scored in batches, against their logits one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from rlvr_limit.models import log_probs
from tests.support.visual_models import ShownImage, seeing_model, seen_logits, seen_pairs

NAME = "qwen25vl-untied"


def alone(prompt: tuple[int, ...], answer: tuple[int, ...], images: tuple[ShownImage, ...]) -> np.ndarray:
    """Log-probs of an answer's tokens from a row of its own."""
    model, params = seeing_model(NAME)
    logp_TV = log_softmax(seen_logits(params, model, [*prompt, *answer], len(prompt), images), axis=1)
    return logp_TV[len(prompt) - 1 + np.arange(len(answer)), list(answer)]


@pytest.mark.slow
def test_scores_in_batches_equal_those_of_rows_alone_and_other_images_give_others() -> None:
    model, params = seeing_model(NAME)
    pairs = seen_pairs()
    scores = [np.array(scored.logp) for scored in log_probs.score_pairs(params, model, pairs)]
    for pair, logp in zip(pairs, scores, strict=True):
        np.testing.assert_allclose(logp, alone(*pair), rtol=0, atol=2e-4)
    assert np.abs(scores[0] - scores[3]).max() > 0.1
    ((_, rows),) = log_probs.prefix_batches([pairs[0], pairs[3], pairs[2]], 4096, 1, vision=model.vision)
    # Three different prompts of two texts, in four rows; two images.
    assert len(set(rows.prefix_index_B[:3].tolist())) == 2 and (rows.seen.images.length_I > 0).sum() == 2
