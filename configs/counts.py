"""Anybody's published counts on the same page: a CSV with the columns problem,arm,n,correct is all it takes.

No figure of the paper, or all of its pass@k figures. Needs no model, no samples and no accelerator. Run it:
python main.py --config=configs/counts.py --config.counts.path=FILE.csv --config.workdir=DIR

One line for each problem and arm: n samples drawn, correct of them right. n may differ between problems and arms; each
curve ends at the fewest samples its arm has.
"""

import dataclasses

from ml_collections import ConfigDict

from rlvr_limit.settings import CountsSettings


def get_config() -> ConfigDict:
    """Only what the counts job reads."""
    config = ConfigDict(dataclasses.asdict(CountsSettings()))
    config.purpose = "What two or more models solve with k tries, from counts of right answers alone."
    config.caveat = (
        "Made from counts of right answers and nothing else: whether the arms were sampled under the same conditions, "
        "how answers were graded and what guessing reaches is for the reader to find out. The bands speak of other "
        "problems of the same kind, not of other training runs."
    )
    return config
