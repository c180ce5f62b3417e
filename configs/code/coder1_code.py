"""Qwen2.5-7B-Instruct-1M against CodeR1-Zero on LiveCodeBench v5, HumanEval+ and MBPP+ (Yue et al. 2025, Table 1).

Run it: python main.py --config=configs/code/coder1_code.py --config.arms.rl.weights=FOLDER [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200. Programs run on Linux.
Expected: CodeR1-Zero ahead at k = 1 (LiveCodeBench pass@1 28.6), the base ahead at the largest k. n = 128 is ours: the
paper's n for code is not known here. The hub name of CodeR1-Zero and the revisions were not checked.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

BENCHMARKS = {"livecodebench_v5": 128, "livecodebench_v5_all": 128, "humanevalplus": 128, "mbppplus": 128}


def get_config() -> ConfigDict:
    """Both arms: template livecodebench, for HumanEval+ and MBPP+ humaneval_plus; the usual tokens end an answer."""
    shape = {**shapes.QWEN25_7B, "context": 1_010_000}
    config = base.released("coder1_code", "Qwen2.5-7B-Instruct-1M: base against CodeR1-Zero", shape, BENCHMARKS)
    config.grading.seconds = 300.0
    config.arms.base = base.arm("Qwen2.5-7B-Instruct-1M", "base", "Qwen/Qwen2.5-7B-Instruct-1M", "livecodebench")
    config.arms.rl = base.arm("CodeR1-Zero 7B", "rl", "CodeR1-Zero-Qwen2.5-7B", "livecodebench")
    for arm in (config.arms.base, config.arms.rl):
        arm.prompt_of = {"humanevalplus": "humaneval_plus", "mbppplus": "humaneval_plus"}
    return config
