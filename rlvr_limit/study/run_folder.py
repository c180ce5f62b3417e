"""What names a run folder, what names a stream of random numbers, and what a run folder begins with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from rlvr_limit import records
from rlvr_limit.distributed.mesh import machine
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.records.storage import Place
from rlvr_limit.rl.reward_functions import reward_named, source_digest
from rlvr_limit.settings import TOKEN_SAMPLING, ImportedSettings, Reinforced, Settings, Supervised, schema
from rlvr_limit.study import recipes
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Setup, Study, Task, answer_limit, benchmark_of
from rlvr_limit.types import Problem

NAMED_BY = ("name", "seed", "task", "benchmarks", "limit", "model", "dtype", "arms")
"""Settings that decide what a sample is, with those below: what names a run folder, and nothing else does."""

ENGINE_COUNTS = ("reference",)
"""Of engine; its other fields and the mesh are shapes, in which samples agree within rounding."""

TRAINING_COUNTS = ("param_dtype",)
"""Of training."""

CACHE_DTYPE = "cache_dtype"
"""A field of engine that is gone, and always was "" but in trials: without it everything would have another name."""

GONE = (CACHE_DTYPE, "speculative_tokens")
"""Fields of engine that shapes of older sessions have."""

SAMPLING_COUNTS = (*TOKEN_SAMPLING, "max_tokens", "allow_beyond_context")
"""Of sampling; n may grow in the same folder."""

STREAMS = "weights"
"""What samples' random numbers derive from: the arm's weights. A folder where they derive from its name is refused."""


def conditions(s: Settings, task: Task, setups: dict[str, Setup]) -> dict[str, Any]:
    """All that decides what a sample is; its digest names the run folder."""
    counted = {name: schema.to_jsonable(getattr(s, name)) for name in NAMED_BY}
    for group in (counted["task"], counted["model"], *counted["arms"].values()):
        leave_out_unused(group)
    for name, arm in s.arms.items():
        # How fast it is asked, and at what price, decides nothing.
        own = counted["arms"][name].pop("endpoint")
        # Each run is an arm of its own here.
        del counted["arms"][name]["seeds"]
        counted["arms"][name]["rl"] = recipe_facts(arm.rl)
        counted["arms"][name] |= {"endpoint": {"url": own["url"], "model": own["model"]}} if arm.endpoint else {}
    counted["engine"] = {CACHE_DTYPE: ""} | {name: getattr(s.engine, name) for name in ENGINE_COUNTS}
    counted["training"] = {name: getattr(s.training, name) for name in TRAINING_COUNTS}
    if not s.training.vision:
        counted["training"]["vision"] = False
    counted["sampling"] = {name: getattr(s.sampling, name) for name in SAMPLING_COUNTS}
    if s.hosts.hosts_per_replica > 1:
        counted["hosts_per_replica"] = s.hosts.hosts_per_replica
    asked = {name: _asked(s, setup) for name, setup in setups.items()}
    return counted | {"asked": asked, "notes": list(task.notes), "streams": STREAMS} | _rewards(s)


def leave_out_unused(group: dict[str, Any] | None) -> None:
    """Takes away fields that came later where they are not used: what was named without them keeps its name."""
    for name in ("seen", "swap_images", "vision", "asked_first", "sharpen", "unsolved_in"):
        if group and name in group and not group[name]:
            del group[name]


def recipe_facts(recipe: Supervised | Reinforced | None) -> dict[str, Any] | None:
    """What a recipe is by name: a clip that is left to the algorithm is the algorithm's."""
    facts = schema.to_jsonable(recipe)
    if isinstance(recipe, Reinforced):
        facts["clip"] = recipes.algorithm(recipe).clip_low
        if not recipe.teacher:
            del facts["teacher"]
        leave_out_unused(facts)
    return facts


def stream(study: Study, entry: EvaluatedArm, temperature: float) -> str:
    """What an arm's random numbers derive from: its weights and how they are sampled, whatever the arm is called."""
    setup, weights = study.setups[entry.arm], study.weights_sha256(entry)
    assert weights, f"the weights of {entry.name} were not loaded before they are sampled"
    counted = {name: getattr(setup.sampling, name) for name in SAMPLING_COUNTS} | {"temperature": temperature}
    # Constants that have been part of every stream: without them all samples would be other ones.
    counted |= {"n": 0, "n_of": {}, "adaptive": 0}
    if sharpen := study.settings.arms[entry.arm].sharpen:
        counted["sharpen"] = schema.to_jsonable(sharpen)
    return schema.digest([weights, counted, sorted(setup.stop_tokens)])


def sample_identity(study: Study, entry: EvaluatedArm, temperature: float) -> str:
    """What an arm's samples are, beside their prompt and index: equal ones may stand for one another.

    Two that agree in it differ by rounding at most; two of engine.reference by nothing.
    """
    engine = ["", study.engine.reference]
    model = _shape(study.setups[entry.arm].model)
    return schema.digest([study.settings.seed, stream(study, entry, temperature), model, engine])


def _shape(model: ModelConfig | None) -> dict[str, Any] | None:
    """A model's fields, without a vision tower where there is none, as in digests from before there were any.

    None of an endpoint's, which are not known.
    """
    shape = schema.to_jsonable(model)
    return shape if not model or model.vision else {name: x for name, x in shape.items() if name != "vision"}


def code_and_versions() -> dict[str, str]:
    """What hosts must share to draw the same samples: the sources of the package, and the libraries."""
    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for name in ("rlvr_limit", "kernels") for path in (root / name).rglob("*.py"))
    return {"code": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12], **_versions()}


def last_shapes(root: Place) -> dict[str, Any] | None:
    """The shapes that the last session of a run folder had; None where there was none."""
    if not (root / "manifest.json").exists():
        return None
    sessions = records.read_manifest(root)["sessions"]
    shapes = sessions[-1].get("shapes") if sessions else None
    if shapes:
        shapes["engine"] = {name: value for name, value in shapes["engine"].items() if name not in GONE}
    return shapes


def open_folder(study: Study, decisive: dict[str, Any], shapes: dict[str, Any]) -> None:
    """Makes the run folder, or goes on with it. UserError where it was made under other conditions."""
    records.open_run(study.root, decisive, session(study.settings, shapes))
    keep_prompts(study)


def session(settings: Settings | ImportedSettings, shapes: dict[str, Any]) -> dict[str, Any]:
    """What the manifest keeps of one session in a run folder."""
    return {
        "config": schema.to_jsonable(settings),
        "versions": _versions(),
        "device": machine(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "shapes": shapes,
    }


def keep_prompts(study: Study) -> None:
    """Puts on record the problems that are not there yet, with their prompts and references."""
    there = records.read(study.root, "prompts", columns=["variant", "problem_id", "answer"]).to_pylist()
    # A problem whose reference was corrected has a row with each.
    have = {(row["variant"], row["problem_id"], row["answer"]) for row in there}
    with records.Writer(study.root, "prompts") as writer:
        for setup in {setup.variant: setup for setup in study.setups.values()}.values():
            new = [p for p in setup.problems if (setup.variant, p.id, str(p.answer)) not in have]
            writer.append([_prompt_row(setup, problem) for problem in new])


def prompt_sha256(problem: Problem) -> str:
    """Identity of a rendered prompt and its images."""
    return hashlib.sha256(problem.identity.encode()).hexdigest()


def _asked(s: Settings, setup: Setup) -> dict[str, Any]:
    lessons = [[p.prompt_ids, str(p.answer), *(image.digest for image in p.images)] for p in setup.training]
    lessons += [list(pair) for pair in setup.shown]
    return {
        "prompts": setup.variant,
        "prompts_sha256": hashlib.sha256("\n".join(p.identity for p in setup.problems).encode()).hexdigest(),
        "stop_tokens": list(setup.stop_tokens),
        "model": _shape(setup.model),
        "shortest_limit": min(answer_limit(s.sampling, setup.model, p) for p in setup.problems),
        **({"learns_from": schema.digest(lessons)} if setup.folder and lessons else {}),
    }


def _rewards(s: Settings) -> dict[str, Any]:
    """The source of reward functions of one's own, where an arm is trained on one. UserError where there is none."""
    names = {name: arm.rl.reward for name, arm in s.arms.items() if arm.rl and not arm.weights}
    rewards = {name: reward_named(reward, f"config.arms.{name}.rl.reward") for name, reward in names.items()}
    digests = {name: source_digest(reward) for name, reward in rewards.items() if reward}
    return {"rewards": digests} if digests else {}


def _versions() -> dict[str, str]:
    packages = (
        "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow", "latex2sympy2-extended", "tokenizers",
    )  # fmt: skip
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


def _prompt_row(setup: Setup, p: Problem) -> dict[str, Any]:
    return {
        "variant": setup.variant,
        "problem_id": p.id,
        "benchmark": benchmark_of(p.id),
        "question": p.question,
        "prompt": p.prompt,
        "prompt_ids": list(p.prompt_ids),
        "prompt_sha256": prompt_sha256(p),
        "answer": str(p.answer),
        "guess_rate": p.guess_rate,
    }
