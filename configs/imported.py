"""Samples that others drew, on the same page: one file, pattern of files or folder is an arm.

Run it: python main.py --config=configs/imported.py --config.imported="('base=FILE','rl=FILE')" --config.workdir=DIR
No figure of the paper, or all of its pass@k figures. Needs no model and no accelerator.

Formats are told by what is in the files: replies of OpenAI-compatible servers and outputs of their batches, vLLM's
outputs, lm-evaluation-harness --log_samples, lighteval's details, NeMo-Skills, inspect_ai's logs, Qwen2.5-Math and the
code of the paper's authors, and {"problem" or "id", "response" or [responses]} a line. Where rows have no reference:
--config.benchmarks="('math500',)" [--config.data_dir=FOLDER].
"""

import dataclasses

from ml_collections import ConfigDict

from rlvr_limit.settings import ImportedSettings


def get_config() -> ConfigDict:
    """What no file needs to say is allowed to be unknown; what two files say must agree."""
    config = ConfigDict(dataclasses.asdict(ImportedSettings()))
    config.purpose = "What two or more models solve with k tries, from samples that others drew."
    config.caveat = (
        "The samples were drawn elsewhere: conditions that their files do not record are unknown, and a difference "
        "between the curves may come from there. All answers were graded here, alike."
    )
    config.allow_unknown = (
        "template", "eos", "lengths", "temperature", "top_p", "top_k", "min_p", "engine", "dtype",
    )  # fmt: skip
    return config
