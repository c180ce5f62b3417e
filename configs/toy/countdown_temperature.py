"""Countdown, base against GRPO at three temperatures: the paper's Fig. 17 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_temperature.py
Hardware: 2 CPU cores, 7 minutes; 2 where configs/toy/countdown_algorithms.py was run before, whose weights are taken.
Expected: at every temperature GRPO above the base at k = 1 and below it at the largest k; both fall at 1.2.
"""

from ml_collections import ConfigDict

from configs.toy import countdown_algorithms

TEMPERATURES = (1.0, 1.2)


def get_config() -> ConfigDict:
    """A panel a temperature: T = 0.6 as everywhere in the paper, and further views of the same weights; top-p 0.95."""
    config = countdown_algorithms.study("countdown_temperature", "Countdown: three temperatures", ("grpo",))
    config.purpose = "Does the comparison of base and GRPO come out otherwise at another sampling temperature?"
    config.sampling.update({"n": 256, "temperature": 0.6, "top_p": 0.95})
    config.report.k = 256
    config.arms.grpo.rl.save_at = (40,)
    for arm in config.arms.values():
        arm.panel = "T=0.6"
    for temperature in TEMPERATURES:
        for name, weights, group in (("base", "base", "base"), ("grpo", "grpo-40", "rl")):
            config.arms[f"{name}_t{round(10 * temperature)}"] = {
                "label": config.arms[name].label,
                "group": group,
                "panel": f"T={temperature}",
                "weights_of": weights,
                "sampling": {"temperature": temperature},
            }
    return config
