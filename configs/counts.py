"""Anybody's published counts on the same page: a CSV with the columns problem,arm,n,correct is all it takes.

No figure of the paper, or all of its pass@k figures. Needs no model, no samples and no accelerator. Run it:
python main.py --config=configs/counts.py --config.counts.path=FILE.csv --config.workdir=DIR

One line for each problem and arm: n samples drawn, correct of them right. n may differ between problems and arms; each
curve ends at the fewest samples its arm has.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Only what the counts job reads."""
    return ConfigDict(
        {
            "job": "counts",
            "workdir": "",  # where the page goes; "": runs/counts/<name of the file>
            "title": "",  # "": the name of the file
            "purpose": "What two or more models solve with k tries, from counts of right answers alone.",
            "caveat": (
                "Made from counts of right answers and nothing else: whether the arms were sampled under the same "
                "conditions, how answers were graded and what guessing reaches is for the reader to find out. The "
                "bands speak of other problems of the same kind, not of other training runs."
            ),
            "counts": {
                "path": "",
                "base": "",  # the arm that the others are held against; "": the first in the file
                "rl": "",  # the arm to tell about first; "": the last in the file
                "guess": 0.0,  # chance that one guess is right, such as 0.001 for AIME; 0: not known
            },
            "report": {"k": 0},
        }
    )
