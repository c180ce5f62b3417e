"""A bfloat16 cache stays what and where it is while tokens are drawn on a CPU: nothing of its size is made beside."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest

from kernels import native
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.engine.shapes import shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import programs
from rlvr_limit.settings import EngineConfig, MeshConfig
from tests.support import hlo

MODEL = ModelConfig(64, 32, 2, heads=4, kv_heads=2, head_width=16, ffn_width=64, dtype="bfloat16", tied_embedding=True)
ENGINE = EngineConfig(max_num_seqs=16, steps_per_call=4, max_prompt_len=32, prefill_rows=2, prefix_rows=2)


def held(model: ModelConfig) -> tuple[dict[str, float], float]:
    """Temporaries of each program as a share of the cache, and arrays of a layer's keys' size made a step."""
    mesh = make_mesh(MeshConfig())
    sizes = shapes_of(ENGINE, mesh, 1024)
    pool = jax.tree.leaves(sizes.abstract_pool(model))
    cache, keys = sum(x.size * 2 for x in pool), pool[0].size * 2
    made = [
        programs.decode_window(model, sizes, mesh, 16),
        programs.prefill(model, ENGINE, sizes, mesh, 32),
        *programs.moved_pages(model, sizes, mesh),
    ]
    compiled = {program.name.split()[0]: program.trace().lower().compile() for program in made}
    shares = {name: c.memory_analysis().temp_size_in_bytes / cache for name, c in compiled.items()}
    print(shares)
    return shares, hlo.token_loop(compiled["decode_window"].as_text(), 4, keys, dict(mesh.shape)).big_writes_step


def test_no_program_makes_a_copy_of_the_cache_or_of_a_layer_s_keys():
    if not native.ready():
        pytest.skip("no C++ compiler")
    shares, big_writes = held(MODEL)
    assert max(shares.values()) < 0.15 and big_writes == 0


@pytest.mark.slow
def test_without_a_compiler_xla_widens_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "ready", lambda: False)
    # Another shape, which nothing has been traced for.
    shares, _ = held(replace(MODEL, head_width=8))
    assert shares["decode_window"] > 0.5
