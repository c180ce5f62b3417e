"""Small studies, prepared in this process as a job prepares them, and the settings of the configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvr_limit import rl
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings, command_line, schema
from rlvr_limit.study.prepared import Study
from tests.support.smoke import REPOSITORY


def smoke_study(runs: Path, *overrides: str) -> Study:
    """The smoke config with its run folder under `runs`, and 10 samples of a problem."""
    config = REPOSITORY / "configs" / "countdown_smoke.py"
    words = ["main.py", f"--config={config}", f"--config.runs={runs}", "--config.report.k=0"]
    words += [f"--config.{o}" for o in ("sampling.n=10", *overrides)]
    return prepare(command_line.parse_command_line(words, config))


def prepare_config(config: Any) -> Study:
    """What a config that a test has changed means."""
    return prepare(schema.from_config(Settings, config))


PROMPTS, ANSWERS, MINIBATCHES, STEPS = 4, 8, 2, 2


def algorithms_config(runs: Path, arms: dict[str, dict[str, Any]]) -> Any:
    """The smoke config with these reinforced arms from its base."""
    path = REPOSITORY / "configs" / "countdown_smoke.py"
    config = command_line.read_config(["main.py", f"--config={path}", f"--config.runs={runs}"], path)
    config.unlock()
    config.job = "train"
    usual = {"prompts": PROMPTS, "answers": ANSWERS, "minibatches": MINIBATCHES, "steps": STEPS, "save_at": (1, STEPS)}
    # A base that is right often enough for groups of eight to be mixed.
    config.arms.base.pretrain.update({"right": 1.0, "steps": 100})
    recipe = {k: v for k, v in config.arms.grpo.rl.to_dict().items() if k != "algorithm"} | usual
    optimizer = config.arms.grpo.rl.optimizer.to_dict() | {"warmup": 0}
    for name in ("grpo", "distilled", "control"):
        del config.arms[name]
    for name, changes in arms.items():
        row = {"algorithm": changes.get("algorithm", name), "optimizer": optimizer}
        row |= {"value_optimizer": optimizer} if row["algorithm"] == "ppo" else {}
        config.arms[name] = {"label": name, "group": "rl", "weights": "", "rl": recipe | row | changes}
    return config


def from_trained_base(trained: Study, reward: str = "verdict", **changes: Any) -> Any:
    """A config of one reinforced arm, "arm", that starts from the trained base; its programs are compiled already."""
    config = algorithms_config(Path(trained.settings.runs), {"arm": {"algorithm": "grpo", "reward": reward, **changes}})
    config.arms.base.weights = str(trained.root / "weights" / "base")
    return config


def answers_of(trained: Study, batch: rl.PolicyBatch) -> list[tuple[tuple[int, ...], float, bool]]:
    """(prompt ids, reward by the grader, whether it was cut) of each row."""
    setup, by_prompt = trained.setups["base"], {p.prompt_ids: p for p in trained.setups["base"].training}
    found, rows = [], batch.rows
    columns = rows.prefix_index_B, rows.tokens_BT[:, 0].tolist(), rows.targets_BT, rows.answer_BT
    for of, last, targets, answer in zip(*columns, strict=True):
        prompt, reply = (*rows.prefix_PS[of, : rows.length_P[of]].tolist(), last), tuple(targets[answer].tolist())
        right = trained.task.grade(by_prompt[prompt], setup.tokenizer.decode(reply)).correct
        found.append((prompt, float(right), reply[-1] not in setup.stop_tokens))
    return found


def settings_of(name: str) -> Settings:
    """What a config of configs/ says."""
    return command_line.parse_command_line(["main.py", f"--config={name}"], REPOSITORY / "configs" / "countdown.py")
