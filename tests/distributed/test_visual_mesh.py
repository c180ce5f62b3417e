"""A model that sees, on eight virtual devices, as on one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import parameter_specs
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import SamplingParams
from tests.goldens import visual
from tests.support.visual_models import seeing_model, seen_pairs, shown_prompts, visual_golden

NAME = "qwen25vl-untied"
MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_scores_and_samples_equal_those_of_one_device(shape: tuple[int, int, int]) -> None:
    model, params = seeing_model(NAME)
    spread = jax.device_put(params, parameter_shardings(parameter_specs(model), make_mesh(MeshConfig(*shape))))
    pairs = seen_pairs() * 4
    one, many = (log_probs.score_pairs(under, model, pairs) for under in (params, spread))
    away = max(np.abs(np.array(a.logp) - np.array(b.logp)).max() for a, b in zip(one, many, strict=True))
    print(f"{shape}: log-probs {away:.1e} nats apart")
    assert away <= 1e-5
    config = EngineConfig(max_num_seqs=8, steps_per_call=4, max_prompt_len=96, prefill_rows=2)
    engine = Engine(spread, model, config, visual.GENERATED)
    greedy = SamplingParams(0.0, 1.0, max_tokens=visual.GENERATED)
    requests = [
        Request(str(i), ids, prompt_key(0, "eval", str(i)), (0,), greedy, images=images)
        for i, (ids, images) in enumerate(shown_prompts())
    ]
    stored = visual_golden(NAME)
    for sample in engine.generate(requests):
        assert list(sample.tokens) == stored["tokens"][int(sample.problem_id)].tolist()
