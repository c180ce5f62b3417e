"""The scorer against transformers' log-probs on tiny checkpoints of odd shapes of every family."""

import numpy as np
import pytest

from rlvr_limit.models import log_probs
from tests.goldens import families
from tests.support.golden_models import NAMES, model_config, our_params


@pytest.mark.parity
@NAMES
def test_log_probs_and_entropies_are_those_of_transformers_behind_shared_and_short_prompts(name: str) -> None:
    from tests.goldens.make_goldens import reference_logits

    logits = np.asarray(reference_logits(name, "float32", "float32"), np.float64)
    logp = logits - logits.max(axis=1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(axis=1, keepdims=True))
    entropy = -(np.exp(logp) * logp).sum(axis=1)
    tokens = families.tokens(name).tolist()
    cuts = [(200, 512), (200, 201), (200, 333), (1, 512), (7, 90)]
    pairs = [(tuple(tokens[:start]), tuple(tokens[start:end])) for start, end in cuts]
    scores = log_probs.score_pairs(our_params(name), model_config(name), pairs)
    for (start, end), scored in zip(cuts, scores, strict=True):
        places = np.arange(start - 1, end - 1)
        assert np.abs(np.array(scored.logp) - logp[places, tokens[start:end]]).max() <= 1e-4
        assert np.abs(np.array(scored.entropy) - entropy[places]).max() <= 1e-4
