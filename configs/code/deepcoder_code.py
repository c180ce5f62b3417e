"""DeepSeek-R1-Distill-Qwen-14B against DeepCoder-14B-Preview on LiveCodeBench v5 (Yue et al. 2025, v5, Fig. 3).

Run it: python main.py --config=configs/code/deepcoder_code.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200. Programs run on Linux.
Expected: DeepCoder ahead at k = 1, the base level or ahead at the largest k. n = 128 is ours: the paper's curve ends
near 60. Answers may have 32,768 tokens. The messages are LiveCodeBench's, where the authors' code has rllm's. Revisions
not checked.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: the models' own chat template around LiveCodeBench's words."""
    config = base.released(
        "deepcoder_code", "R1-Distill-Qwen-14B: base against DeepCoder", shapes.QWEN25_14B, {"livecodebench_v5": 128}
    )
    config.sampling.max_tokens = 32_768
    config.grading.seconds = 300.0
    config.arms.base = base.arm(
        "R1-Distill-Qwen-14B", "base", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "livecodebench_chat", stop=()
    )
    config.arms.rl = base.arm(
        "DeepCoder-14B", "rl", "agentica-org/DeepCoder-14B-Preview", "livecodebench_chat", stop=()
    )
    return config
