"""Does a released model know the problems? It is asked their beginnings, and goes on: an audit of contamination.

Run it: python main.py --config=configs/real/contamination.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
    [--config.data_dir=FOLDER] [--config.benchmarks="('gsm8k',)"]
Hardware: any GPU; two CPU cores with --config.limit=40.
Expected: rates near 0 for a model that never saw the problems. Wu et al. 2025 (arXiv 2507.10532) have 39, 55 and 66 %
    of MATH-500 completed by Qwen2.5-Math-7B behind 40, 60 and 80 %, and 3.8 % by Llama-3.1-8B behind 60 %.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """One model, greedy and with no template: all of each question, and its first 40, 60 and 80 %."""
    config = base.released("contamination", "Contamination audit", shapes.QWEN25_05B, {"math500": 1})
    config.purpose = "How many of these problems can the model complete, or answer, that has read their beginning only?"
    config.sampling.update({"temperature": 0.0, "top_p": 1.0, "max_tokens": 512})
    config.score.answers = 1
    config.arms.base = base.arm("the model", "base", "Qwen/Qwen2.5-Coder-0.5B-Instruct", "bare", stop=())
    base.audit(config, "base")
    return config
