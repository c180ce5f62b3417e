"""How every arm is asked: its problems with their prompts, its tokenizer, its decoder, what it learns from."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_limit import checkpoint
from rlvr_limit.grading import composition as composition_grading
from rlvr_limit.grading import countdown as countdown_grading
from rlvr_limit.grading.code import grade as code_grading
from rlvr_limit.grading.math.extract import is_bare
from rlvr_limit.grading.named import NamedGrader, grader_named
from rlvr_limit.grading.sandbox.run import SandboxError, warn_of_missing_protection
from rlvr_limit.images import PixelLimits, limits_of
from rlvr_limit.models.decoder import shaped_as
from rlvr_limit.settings import Arm, CompositionConfig, Settings, schema
from rlvr_limit.study.arms import origin, sampling_of
from rlvr_limit.study.prepared import Setup, Task, answer_limit, benchmark_of, prompt_name
from rlvr_limit.tasks import benchmarks, composition, countdown, counts, demonstrations, pictures, prompts
from rlvr_limit.tasks.questions import Question, beginning
from rlvr_limit.tokenizer import TextTokenizer, load_tokenizer
from rlvr_limit.types import Problem, UserError, not_allowed


def task_and_setups(s: Settings) -> tuple[Task, dict[str, Setup]]:
    """What is asked, and of each arm how. Raises UserError, one line, for what cannot be asked."""
    task, setups = _composition(s) if composed(s) else _countdown(s) if s.task else _benchmarks(s)
    for name, setup in setups.items():
        _check_prompts(s, name, setup)
    if s.job in ("compare", "report"):
        check_page(next(iter(setups.values())).problems)
    return task, setups


def check_page(problems: Iterable[Problem]) -> None:
    """Every page has bands over problems, of which there must be two."""
    for name, count in Counter(benchmark_of(problem.id) for problem in problems).items():
        if count < 2:
            where = f"benchmark {name}" if name else "config.task.eval_problems"
            raise UserError(f"{where}: 1 problem, but a page needs at least 2; job=sample draws from one")


def composed(s: Settings) -> bool:
    """Whether the problems are composed functions."""
    return isinstance(s.task, CompositionConfig)


def _composition(s: Settings) -> tuple[Task, dict[str, Setup]]:
    problems, training = composition.problems(s.task, s.seed)
    words = composition.tokenizer(s.task)
    setup = Setup(
        shaped_as(s.model, words.vocab_size, s.dtype),
        words,
        schema.digest(words.backend.to_str()),
        benchmark_digest(problems),
        "composition",
        tuple(problems),
        (words.eos_id,),
        s.sampling,
    )
    task = Task(
        composition_grading.grade,
        composition_grading.VERSION,
        inline=True,
        demonstrate=partial(composition.demonstrations, s.task, s.seed),
        exact_chains=True,
    )
    setups = {}
    for name, arm in s.arms.items():
        learnt = tuple(training)
        if arm.recipe and arm.recipe.data:
            kind, depths = "rl" if arm.rl else "sft" if arm.sft else "pretrain", [f"depth{d}" for d in s.task.depths]
            for depth in arm.recipe.data:
                if depth not in depths:
                    raise not_allowed(f"config.arms.{name}.{kind}.data", depth, f"one of {', '.join(depths)}")
            learnt = tuple(p for p in training if benchmark_of(p.id) in arm.recipe.data)
        setups[name] = dataclasses.replace(
            setup, sampling=sampling_of(s.sampling, arm), training=learnt, lessons=learnt
        )
    return task, setups


def _countdown(s: Settings) -> tuple[Task, dict[str, Setup]]:
    if s.task.seen != bool(s.model.vision):
        raise UserError("config.task.seen: numbers that are seen need config.model.vision, and it needs them")
    game = countdown.Game(s.task)
    problems, training = countdown.problems(game, s.seed)
    words = countdown.tokenizer(s.task)
    shape, vocabulary = s.model, schema.digest(words.backend.to_str())
    if s.task.seen:
        patch = problems[0].images[0].patch
        if shape.vision.patch != patch:
            allowed = f"{patch}, which numbers up to task.high = {s.task.high} are drawn for"
            raise not_allowed("config.model.vision.patch", shape.vision.patch, allowed)
        vision = dataclasses.replace(shape.vision, image_token=words.token_id(pictures.PAD))
        shape = dataclasses.replace(shape, vision=vision)
    setup = Setup(
        shaped_as(shape, words.vocab_size, s.dtype),
        words,
        vocabulary,
        benchmark_digest(problems),
        "countdown",
        tuple(problems),
        (words.eos_id,),
        s.sampling,
        training=tuple(training),
        lessons=tuple(training),
    )
    task = Task(
        countdown_grading.grade,
        countdown_grading.VERSION,
        inline=True,
        demonstrate=partial(countdown.demonstrations, game),
        uses_given=countdown_grading.uses_given,
    )
    swapped = setup
    if any(arm.swap_images for arm in s.arms.values()):
        swapped = dataclasses.replace(setup, variant="countdown-swapped", problems=tuple(pictures.swapped(problems)))
    return task, {
        name: dataclasses.replace(swapped if arm.swap_images else setup, sampling=sampling_of(s.sampling, arm))
        for name, arm in s.arms.items()
    }


def _benchmarks(s: Settings) -> tuple[Task, dict[str, Setup]]:
    # Each is read once, however many arms learn from it.
    names = dict.fromkeys([*s.benchmarks, *(name for arm in s.arms.values() for name in _learns_from(arm))])
    _check_names(names)
    loaded = {name: benchmarks.load(name, s.data_dir, s.seed, s.allow_rows) for name in names}
    notes = tuple(dict.fromkeys(note for _, said in loaded.values() for note in said))
    for note in notes:
        logging.warning(note)
    known = {name: found for name, (found, _) in loaded.items()}
    questions = [q for name in s.benchmarks for q in known[name][: s.limit or None]]
    swapped = pictures.swapped(questions) if any(arm.swap_images for arm in s.arms.values()) else []
    benchmark = benchmark_digest(questions)
    setups: dict[str, Setup] = {}
    ways: dict[tuple, tuple[Setup, _Asker]] = {}
    for name, arm in s.arms.items():
        if arm.endpoint:
            setups[name] = _asked_there(s, name, arm, questions, benchmark)
            continue
        given = origin(s.arms, name)
        way = given.weights, given.revision, arm.prompt, tuple(arm.prompt_of.items()), arm.stop, arm.swap_images
        way += (arm.asked_first,)
        if way not in ways:
            ways[way] = _asked_so(s, name, arm, given, swapped if arm.swap_images else questions, benchmark)
        setup, asker = ways[way]
        lessons = _lessons(s, arm, asker, known)
        setups[name] = dataclasses.replace(setup, sampling=sampling_of(s.sampling, arm), **lessons)
    if any(q.is_code for q in questions):
        return code_task(s.benchmarks, questions, notes), setups
    if s.grading.grader in ("math", "visual"):
        _check_references(q for name in s.benchmarks if name not in benchmarks.BY_NAME for q in known[name])
    return text_task(grader_named(s.grading.grader), notes), setups


def _check_names(names: Iterable[str]) -> None:
    """Problems of two files of one name would have the same ids, and the samples of one would count for the other."""
    first_of: dict[str, str] = {}
    for name in names:
        called = benchmarks.called(name)
        if first_of.setdefault(called, name) != name:
            raise UserError(
                f"config.benchmarks: {first_of[called]} and {name} would both call their problems {called}/0, "
                f"{called}/1 and so on; rename one of the files"
            )


def _check_references(questions: Iterable[Question]) -> None:
    """An answer of one's own is one that mathematics can compare, and no solution without a mark of where it ends."""
    for q in questions:
        for answer in [q.answer] if isinstance(q.answer, str) else q.answer:
            if not is_bare(answer):
                marks = r"give the value alone, or end in '#### value' or \boxed{value}"
                raise UserError(f"problem {q.id}: its answer {answer!r:.60} is a whole solution; {marks}")


def _learns_from(arm: Arm) -> tuple[str, ...]:
    """The sets of problems, not of demonstrations, that an arm learns from where its weights are not given."""
    if arm.weights or arm.weights_of or not arm.recipe or (arm.sft and not arm.sft.teacher):
        return ()
    return arm.recipe.data


def text_task(named: NamedGrader, notes: tuple[str, ...]) -> Task:
    """The task of a grader that compares answers with references."""
    return Task(
        named.grade,
        named.version,
        inline=False,
        shorten=named.shorten,
        notes=notes,
        second=named.second,
        spelling=named.spelling,
    )


def code_task(names: Sequence[str], questions: Sequence[Question], notes: tuple[str, ...]) -> Task:
    """The task of running programs. UserError where not all questions ask for one, or none can be run safely here."""
    if not all(q.is_code for q in questions):
        raise UserError(f"config.benchmarks: {', '.join(names)} mix code and mathematics; give one of them")
    try:
        warn_of_missing_protection()
    except SandboxError as error:
        raise UserError(str(error)) from error
    return Task(code_grading.grade, code_grading.VERSION, inline=False, shorten=code_grading.shorten, notes=notes)


def benchmark_digest(questions: Iterable[Problem | Question]) -> str:
    """Which problems with which references."""
    return schema.digest([[q.id, str(q.answer)] for q in questions])


@dataclass(frozen=True)
class _Asker:
    """A way in which arms are asked. Each problem is encoded once, however many arms are asked or taught so."""

    arm: Arm  # the first of them
    words: TextTokenizer
    limits: PixelLimits
    known: dict[tuple[str, str], Problem] = field(default_factory=dict)

    def __call__(self, q: Question) -> Problem:
        """The problem with its prompt."""
        if (q.id, q.question) not in self.known:
            template = prompt_name(self.arm, q.id)
            images = tuple(dataclasses.replace(image, limits=self.limits) for image in q.images)
            asked = beginning(q.question, self.arm.asked_first)
            prompt = prompts.render(template, asked, self.words, q.starter_code, len(images))
            ids = self.words.encode(prompt)
            if images:
                ids = pictures.with_pads(ids, self.words.token_id(pictures.PAD), images, f"problem {q.id}")
            self.known[q.id, q.question] = Problem(q.id, q.question, prompt, ids, q.answer, q.guess_rate, images)
        return self.known[q.id, q.question]


def _asked_so(
    s: Settings, name: str, arm: Arm, given: Arm, questions: list[Question], benchmark: str
) -> tuple[Setup, _Asker]:
    """An arm that is trained here is asked as it says itself, with the tokenizer of the weights it starts from."""
    folder = checkpoint.resolve(given.weights, given.revision, with_weights=False)
    model = checkpoint.read_model_config(folder, s.dtype)
    words = load_tokenizer(folder)
    checkpoint.check_vocabulary(model, words.vocab_size, f"config.arms.{name}")
    named = checkpoint.stop_tokens(folder) or (words.eos_id,)
    stops = tuple(dict.fromkeys((*named, *(words.token_id(text) for text in arm.stop))))
    asker = _Asker(arm, dataclasses.replace(words, stop_ids=stops), _limits(s, folder))
    problems = tuple(map(asker, questions))
    if model.vision is None and (shown := next((p.id for p in problems if p.images), "")):
        raise UserError(f"config.arms.{name}: {folder} has no vision tower, and problem {shown} has an image")
    variant = f"{arm.prompt}-{schema.digest([[p.id, p.identity, p.prompt_ids] for p in problems])}"
    vocabulary = schema.digest(words.backend.to_str())
    return Setup(model, asker.words, vocabulary, benchmark, variant, problems, stops, s.sampling, folder), asker


def _asked_there(s: Settings, name: str, arm: Arm, questions: list[Question], benchmark: str) -> Setup:
    """An endpoint has the tokenizer, and the chat template: of a chat prompt the user's turn is what it is sent."""
    problems = []
    for q in questions:
        if q.images:
            raise UserError(f"config.arms.{name}.endpoint: problem {q.id} has images, and only text is sent")
        asked = beginning(q.question, arm.asked_first)
        prompt = prompts.filled(prompts.template(prompt_name(arm, q.id)), asked, q.starter_code)
        problems.append(Problem(q.id, q.question, prompt, (), q.answer, q.guess_rate))
    variant = f"{arm.prompt}-{schema.digest([[p.id, p.identity] for p in problems])}"
    return Setup(None, None, "", benchmark, variant, tuple(problems), (), sampling_of(s.sampling, arm))


def _lessons(s: Settings, arm: Arm, asker: _Asker, known: Mapping[str, Sequence[Question]]) -> dict[str, Any]:
    """What an arm that is trained here learns from: the fields training, lessons or shown of its setup."""
    if arm.weights or arm.weights_of:
        return {}
    words = asker.words
    if arm.sft and not arm.sft.teacher:
        pairs = [pair for path in arm.sft.data for pair in demonstrations.load(path)]
        end = words.stop_ids[0]
        return {"shown": tuple((words.encode(asked), (*words.encode(reply), end)) for asked, reply in pairs)}
    questions = [q for name in _learns_from(arm) for q in known[name]]
    if arm.rl and arm.rl.unsolved_in:
        unsolved = counts.unsolved(Path(arm.rl.unsolved_in), arm.rl.start)
        questions = [q for q in questions if q.id in unsolved]
        if not questions:
            raise UserError(
                f"{arm.rl.unsolved_in}: {arm.rl.start} never solves {len(unsolved)} problems, none of rl.data"
            )
    learnt = {"training": tuple(map(asker, questions))}
    if arm.sft:
        teacher, given = s.arms[arm.sft.teacher], origin(s.arms, arm.sft.teacher)
        folder = checkpoint.resolve(given.weights, given.revision, with_weights=False)
        learnt["lessons"] = tuple(map(_Asker(teacher, load_tokenizer(folder), _limits(s, folder)), questions))
    return learnt


def _limits(s: Settings, folder: Path) -> PixelLimits:
    return limits_of(folder, s.images.min_pixels, s.images.max_pixels)


def _check_prompts(s: Settings, name: str, setup: Setup) -> None:
    """Two problems with one prompt would draw the same samples; a prompt must leave room for an answer."""
    by_prompt: dict[str, Problem] = {}
    capped = 0
    for problem in setup.problems:
        twin = by_prompt.setdefault(problem.identity, problem)
        # Where beginnings are asked, nothing is drawn that two could share.
        if twin is not problem and not s.arms[name].asked_first:
            raise UserError(f"problems {twin.id} and {problem.id} have the same prompt; give one of them only")
        room = answer_limit(s.sampling, setup.model, problem)
        if room < 1:
            raise UserError(
                f"problem {problem.id}: its prompt has {len(problem.prompt_ids)} tokens for arm {name}, whose context "
                f"is {setup.model.context}; shorten it, or set sampling.allow_beyond_context"
            )
        capped += room < s.sampling.max_tokens
    if capped:
        logging.warning(
            "arm %s: a context of %d tokens leaves %d of %d problems less than the %d new tokens asked for",
            name,
            setup.model.context,
            capped,
            len(setup.problems),
            s.sampling.max_tokens,
        )
