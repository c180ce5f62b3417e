"""One released model on MBPP+, asked as Qwen2.5-Coder's own evaluation asks: its curve, no comparison.

Run it: python main.py --config=configs/real/mbpp.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
    [--config.data_dir=FOLDER]; greedy: --config.sampling.temperature=0.0 --config.sampling.n=1
Hardware: two CPU cores or any GPU; programs run on Linux.
Expected: greedy pass@1 of 43.7 % for Qwen2.5-Coder-0.5B-Instruct and 59.4 % for 1.5B, of 52.4 and 69.2 % on the base
    tests alone (arXiv 2412.05210).
"""

from ml_collections import ConfigDict

from configs.real import humaneval


def get_config() -> ConfigDict:
    """humaneval.py on another benchmark."""
    config = humaneval.get_config()
    config.name, config.title, config.benchmarks = "mbpp", "MBPP+", ("mbppplus",)
    return config
