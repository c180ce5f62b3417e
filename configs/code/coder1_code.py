"""Qwen2.5-7B-Instruct-1M against CodeR1-Zero on LiveCodeBench, HumanEval+, MBPP+ (Yue et al. 2025, v5, Figs. 4, 12).

Run it: python main.py --config=configs/code/coder1_code.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200. Programs run on Linux.
Expected: CodeR1-Zero ahead at k = 1 (the wide window of LiveCodeBench: about 28), the base ahead at k = 128, where the
paper's curves end. The narrow window, 2024.8 to 2025.1, is part of the wide one: a run of its own with
--config.benchmarks="('livecodebench_v5',)" takes its samples from there. Revisions not checked.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

BENCHMARKS = {"livecodebench_v5_all": 128, "humanevalplus": 128, "mbppplus": 128}


def get_config() -> ConfigDict:
    """Both arms: template livecodebench, for HumanEval+ and MBPP+ humaneval_plus; the usual tokens end an answer."""
    shape = {**shapes.QWEN25_7B, "context": 1_010_000}
    config = base.released("coder1_code", "Qwen2.5-7B-Instruct-1M: base against CodeR1-Zero", shape, BENCHMARKS)
    config.grading.seconds = 300.0
    config.arms.base = base.arm("Qwen2.5-7B-Instruct-1M", "base", "Qwen/Qwen2.5-7B-Instruct-1M", "livecodebench")
    config.arms.rl = base.arm("CodeR1-Zero 7B", "rl", "ganler/CodeR1-Zero-Qwen2.5-7B-12k-832", "livecodebench")
    for arm in (config.arms.base, config.arms.rl):
        arm.prompt_of = {"humanevalplus": "humaneval_plus", "mbppplus": "humaneval_plus"}
    return config
