"""Qwen2.5-7B against SimpleRL-Zoo at T = 0.6, 1.0 and 1.2 (Yue et al. 2025, v5, Fig. 17).

Run it: python main.py --config=configs/released/qwen7b_temperature.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: at every temperature SimpleRL above the base at k = 1, and the base level or ahead at the largest k.
"""

from ml_collections import ConfigDict

from configs import qwen7b_math

TEMPERATURES = (1.0, 1.2)


def get_config() -> ConfigDict:
    """The arms of configs/qwen7b_math.py, a panel a temperature; the weights are fetched once."""
    config = qwen7b_math.get_config()
    config.name, config.title = "qwen7b_temperature", "Qwen2.5-7B and SimpleRL-Zoo: three temperatures"
    for name in ("base", "rl"):
        own = config.arms[name]
        own.panel = "T=0.6"
        for temperature in TEMPERATURES:
            config.arms[f"{name}_t{round(10 * temperature)}"] = {
                "label": own.label,
                "group": own.group,
                "panel": f"T={temperature}",
                "weights_of": name,
                "sampling": {"temperature": temperature},
            }
    return config
