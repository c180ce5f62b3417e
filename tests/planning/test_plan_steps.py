"""What a decode step takes by the compiler of a TPU, and that devices with rows of their own send nothing in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from rlvr_limit import planning
from rlvr_limit.planning import compiling, fitting, programs
from rlvr_limit.settings import MeshConfig
from tests.support import hlo
from tests.support.plans import NUM_SEQS, STUDY, TINY


def equations(jaxpr: Any, inside: bool = False) -> Iterator[tuple[Any, bool]]:
    """Every equation, and whether a scan contains it."""
    for equation in jaxpr.eqns:
        yield equation, inside
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner, inside or equation.primitive.name == "scan")


def test_no_step_of_a_window_asks_something_of_all_rows() -> None:
    """A reduction to one number goes over all devices that have rows; of what holds for a window it is made once."""
    mesh = programs.make_mesh(MeshConfig(data=2), jax.devices()[:2])
    sizes = fitting.FitCase(TINY, NUM_SEQS, STUDY, mesh, 10**9).sizes
    jaxpr = programs.decode_window(TINY, sizes, mesh, 16).trace().jaxpr.jaxpr
    sums = [inside for e, inside in equations(jaxpr) if e.primitive.name == "reduce_or" and not e.outvars[0].aval.shape]
    assert len(sums) == 3 and not any(sums)


def of_a_chip(name: str) -> tuple[planning.Target, list]:
    target = planning.find_target(name)
    missing = compiling.missing_extra(target)
    if missing:
        pytest.skip(f"the compiler for {name} is not installed: pip install -e '.[{missing}]'")
    return target, compiling.devices_of(target)


@pytest.mark.tpu
@pytest.mark.parametrize("name", ["v5e-8", "v5p-8", "v6e-16"])
def test_a_large_product_takes_cycles_that_the_clock_turns_into_little_more_than_the_peak(name: str) -> None:
    target, devices = of_a_chip(name)
    here = jax.sharding.SingleDeviceSharding(devices[0])
    square = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16, sharding=here)
    text = jax.jit(jnp.matmul).trace(square, square).lower(lowering_platforms=("tpu",)).compile().as_text()
    seconds = hlo.token_loop(text, 1, 1, {"data": 1}).cycles / hlo.CLOCKS[target.chip]
    assert 1 < seconds / (2 * 8192**3 / target.flops) < 1.5


@pytest.mark.tpu
def test_windows_of_data_parallel_tpus_send_nothing_in_their_token_loop_and_a_step_takes_what_it_takes() -> None:
    target, devices = of_a_chip("v5e-8")
    mesh = programs.make_mesh(MeshConfig(data=8), devices)

    def window(steps: int) -> hlo.LoopReport:
        shapes = dataclasses.replace(NUM_SEQS, steps_per_call=steps, page_size=8)
        sizes = fitting.FitCase(TINY, shapes, STUDY, mesh, 10**9).sizes
        text = hlo.text_of(programs.decode_window(TINY, sizes, mesh, 16), target)
        keys = jax.tree.leaves(programs.pool(TINY, sizes, mesh))[0]
        return hlo.token_loop(text, steps, programs.device_bytes(keys), mesh.shape)

    four, eight = window(4), window(8)
    assert (four.turns, eight.turns, four.collectives, four.sent) == (4, 8, (), 0)
    assert four.cycles == pytest.approx(eight.cycles, rel=0.1) and four.cycles > 0
