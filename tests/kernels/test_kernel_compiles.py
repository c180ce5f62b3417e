"""Kernels lowered for TPUs and GPUs that are not here and, where their compilers are installed, compiled for them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kernels.decode_attention import decode_attention
from kernels.top_p import top_p_mask
from rlvr_limit.planning import compiling, find_target
from tests.support import kernel_compiles


@pytest.mark.parametrize("heads", ["Qwen2.5-7B bf16", "Qwen2.5-0.5B float32"])
@pytest.mark.parametrize(("platform", "call"), [("tpu", "tpu_custom_call"), ("cuda", "mosaic_gpu")])
def test_decode_attention_lowers_for_every_platform(heads, platform, call):
    attend = partial(decode_attention, tile=32)
    arguments = kernel_compiles.attention_arguments(kernel_compiles.shapes(None), kernel_compiles.HEADS[heads], 32, 64)
    allowed = [jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
    text = jax.export.export(jax.jit(attend), platforms=[platform], disabled_checks=allowed)(*arguments).mlir_module()
    # The Hopper kernel is for bfloat16 alone.
    assert (call in text) == (platform == "tpu" or "bf16" in heads)
    assert "stablehlo.while" not in text


@pytest.mark.parametrize("cut", [True, False])
def test_xla_is_never_asked_to_cut_a_pallas_kernel_over_a_mesh(cut):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    p_BV, top_p_B = (jax.ShapeDtypeStruct(s, jnp.float32, sharding=rows) for s in ((64, 1000), (64,)))
    mask = top_p_mask
    if not cut:
        mask = jax.shard_map(mask, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec, check_vma=False)
    text = jax.jit(lambda *args: mask(*args)).trace(p_BV, top_p_B).lower(lowering_platforms=("tpu",)).as_text()
    assert ("tpu_custom_call" in text) != cut


def compile_all(target):
    target = find_target(target)
    missing = compiling.missing_extra(target)
    if missing:
        pytest.skip(f"the compiler for {target.name} is not installed: pip install -e '.[{missing}]'")
    device = compiling.devices_of(target)[0]
    for name, function, arguments, most in kernel_compiles.programs(jax.sharding.SingleDeviceSharding(device)):
        program, _ = kernel_compiles.compiled(function, arguments)
        assert program.memory_analysis().temp_size_in_bytes < most, name


@pytest.mark.tpu
@pytest.mark.parametrize("target", ["v5e-8", "v5p-8", "v6e-16"])
def test_kernels_compile_for_a_tpu_without_a_copy_of_what_they_read(target):
    compile_all(target)


@pytest.mark.gpu
def test_kernels_compile_for_an_h200_without_a_copy_of_what_they_read():
    compile_all("h200")


def test_the_programs_that_are_compiled_are_of_the_sizes_they_name():
    found = {name: arguments for name, _, arguments, _ in kernel_compiles.programs()}
    assert found["top_p LLaMA-3.1-8B"][0].shape == (kernel_compiles.ROWS, 128_256)
    assert np.prod(found["decode_attention Qwen2.5-7B bf16"][1].shape) == 1024 * 4 * 128 * 128
