"""What a plan says of machines of several hosts: replicas of the sampler, and the hosts that one may need."""

from __future__ import annotations

import dataclasses
import math

import pytest

from rlvr_limit import planning
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import compiling, fitting, programs, roofline
from rlvr_limit.planning.fitting import Wanted
from rlvr_limit.planning.plan import fit_over_hosts
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import UserError
from tests.support.plans import NUM_SEQS, STUDY, TINY

LARGE = ModelConfig(152_064, 5120, 64, 48, 16, 128, 27_648, dtype="bfloat16")
"""Of about Qwen2.5-32B's shape, and cut evenly by 16 devices."""


@pytest.fixture(scope="module")
def plans() -> list[planning.StudyPlan]:
    """Lowered only: one machine of eight devices, and sixteen of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "missing_extra", lambda target: "none")
        return [
            planning.make_plan(Wanted(TINY, NUM_SEQS, STUDY), planning.find_target(name))
            for name in ("h200-8", "h200-128")
        ]


def test_each_host_has_a_replica_which_is_planned_as_that_of_one_host_is(plans: list[planning.StudyPlan]) -> None:
    one, many = plans
    assert (many.hosts_per_replica, many.replicas, many.mesh) == (1, 16, one.mesh)
    assert [(p.name, p.resident) for p in many.others] == [(p.name, p.resident) for p in one.others]
    assert (many.rates, many.sizes, many.num_seqs) == (one.rates, one.sizes, one.num_seqs)


def test_replicas_draw_beside_one_another_and_share_the_hours(plans: list[planning.StudyPlan]) -> None:
    one, many = plans
    text = planning.render(many)
    speed = roofline.tokens_per_second(one.token_cost, one.rates, one.batch)
    hours = STUDY.answers * STUDY.mean_tokens / (16 * speed) / 3600
    assert f"{speed:,.0f} tokens/s a replica, {16 * speed:,.0f} by 16, {hours:,.1f} hours" in text
    assert "16 hosts of 8 x H200" in text and "; 16 replicas of the sampler, one a host" in text
    assert max(map(len, text.splitlines())) < 200


def test_what_training_holds_is_told_beside_what_the_sampler_needs(plans: list[planning.StudyPlan]) -> None:
    gradient = programs.CompiledProgram("gradient", True, 1.0, 10**9, 2 * 10**9, 10**9)
    window = programs.CompiledProgram("decode_window", True, 1.0, 0, 123 * 10**9, 10**9)
    many = dataclasses.replace(plans[1], windows=(window,))
    for beside, verdict in ((10 * 10**9, "fits"), (11 * 10**9, "does not fit")):
        update = planning.RecipePrograms("grpo", 6 * 10**9, 5 * 10**9, 0, beside, ())
        text = planning.render(dataclasses.replace(many, trained=((update, (gradient,)),)))
        assert "training mesh: data 8, fsdp 16, tensor 1 over all 16 hosts" in text
        assert "grpo: each device holds parameters 6.00 GB, optimizer 5.00 GB\n" in text
        together = f"together {(123 * 10**9 + beside) / 1e9:.2f} GB of 133.95 GB: {verdict}\n"
        assert together in text and max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_replica_spans_the_fewest_hosts_that_hold_it(hosts: int) -> None:
    """4 x 4 devices, and of their memory the least that holds the decoder on so many hosts, or a little less."""
    target = planning.find_target("v6e-16")
    shapes = EngineConfig(max_num_seqs=16, steps_per_call=16, max_prompt_len=512, prefill_rows=8, prefix_rows=16)
    study = planning.Workload((planning.BenchmarkSize("a", 10, 128),), 2, 1024, 1024, 128)
    wanted = Wanted(LARGE, shapes, study, MeshConfig(tensor=4))

    def needs(hosts: int) -> int:
        roomy = dataclasses.replace(target, memory=10**12)
        peak = fitting.fit(dataclasses.replace(wanted, hosts_per_replica=hosts), roomy).sampling_bytes
        return math.ceil(peak / fitting.MARGIN["tpu"])

    def spanned(memory: int, least: int = 1) -> int:
        own = dataclasses.replace(wanted, hosts_per_replica=least)
        return fit_over_hosts(own, dataclasses.replace(target, memory=memory))[1]

    assert needs(1) > needs(2) > needs(4)
    assert spanned(needs(hosts) + 10**9) == hosts
    assert spanned(needs(1) + 10**9, hosts) == hosts
    with pytest.raises(UserError, match="config.hosts.hosts_per_replica: 3 is not a divisor of 4 hosts"):
        spanned(needs(1) + 10**9, 3)
