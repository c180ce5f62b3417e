"""Small and released shapes to plan for."""

from __future__ import annotations

from rlvr_limit import planning
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import fitting, programs
from rlvr_limit.settings import EngineConfig, MeshConfig

TINY = ModelConfig(vocab_size=64, width=32, layers=1, heads=4, kv_heads=2, head_width=8, ffn_width=64)


NUM_SEQS = EngineConfig(max_num_seqs=16, steps_per_call=4, page_size=4, max_prompt_len=8, prefill_rows=2, prefix_rows=3)


STUDY = planning.Workload(
    (planning.BenchmarkSize("a", 10, 4), planning.BenchmarkSize("b", 5, 8)), 2, 12, 6, 4, scored=2, score_tokens=80
)


QWEN_7B = ModelConfig(152_064, 3584, 28, 28, 4, 128, 18_944, dtype="bfloat16")


QWEN_32B = ModelConfig(152_064, 5120, 64, 40, 8, 128, 27_648, dtype="bfloat16")


def case(model: ModelConfig, own: MeshConfig, memory: int, num_seqs: int = 16) -> fitting.FitCase:
    """A case on an abstract mesh: everything but compiling."""
    shapes = EngineConfig(max_num_seqs=num_seqs, steps_per_call=16, max_prompt_len=512, prefill_rows=8, prefix_rows=16)
    study = planning.Workload((planning.BenchmarkSize("a", 10, 128),), 2, 16_384, 1024, 128)
    return fitting.FitCase(model, shapes, study, programs.make_mesh(own, ()), memory)
