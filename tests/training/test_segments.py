"""Answers over several steps: every group is learnt from once, whole, long or short, and the same after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.engine.requests import Request
from rlvr_limit.engine.shapes import segment_engine_config
from rlvr_limit.settings import EngineConfig
from rlvr_limit.training import segments
from rlvr_limit.training.exchange import AnswerSource
from rlvr_limit.training.rollouts import RolloutSource
from rlvr_limit.types import Problem, Sample, SamplingParams, Status, Stop, UserError, Verdict

PROMPTS, ANSWERS, SEGMENT, LONGEST, STEPS = 3, 2, 4, 13, 12
TRAINING = [Problem(f"p{i}", "", f"prompt {i}", (i,), None) for i in range(5)]


class FakeEngine:
    """Ends an answer at each token with one chance in five, by the request's key: some are long, and all are known."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Sample]:
        found = []
        for request in requests:
            self.asked.append(request)
            for index in request.indices:
                rng = np.random.default_rng([*request.key, index])
                tokens = rng.integers(10, 99, request.sampling.max_tokens).tolist()
                end = next((i for i in range(len(tokens)) if rng.random() < 0.2), None)
                stop = Stop.LENGTH if end is None else Stop.EOS
                tokens = tuple(tokens[: None if end is None else end + 1])
                logp = tuple(float(np.float32(-x / 7)) for x in tokens)
                found.append(Sample(request.problem_id, index, tokens, logp, logp, stop))
        yield from reversed(found)


def grade(problem: Problem, text: str) -> Verdict:
    return Verdict(len(text) % 2 == 0, Status.TIMEOUT if len(text) % 5 == 0 else Status.GRADED)


def source(root: Path) -> RolloutSource:
    return RolloutSource(
        arm="a",
        recipe=SimpleNamespace(prompts=PROMPTS, answers=ANSWERS, segment=SEGMENT, reward="verdict"),
        algorithm=rl.ALGORITHMS["grpo"],
        problems=TRAINING,
        answers=AnswerSource(FakeEngine(), lambda ids: "x" * sum(ids), 0, Hosts(), grade),
        sampling=lambda _: SamplingParams(max_tokens=LONGEST, stop_tokens=(1,)),
        max_tokens=LONGEST,
        folder=root / "train" / "a",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RolloutSource, list]:
    made = source(tmp_path_factory.mktemp("run"))
    return made, [segments.draw(made, number) for number in range(1, STEPS + 1)]


def test_every_group_is_learnt_from_once_whole_and_oldest_first(run: tuple[RolloutSource, list]) -> None:
    made, drawn = run
    names = [group.samples[0].problem_id for found in drawn for group in found.groups]
    assert len(names) == len(set(names)) == STEPS * PROMPTS
    left = segments._read(made.folder / "underway", STEPS, {p.id: p for p in TRAINING})
    under_way = [group.name for group in left]
    started = {request.problem_id.partition("+")[0] for request in made.answers.engine.asked}
    assert sorted(names + under_way) == sorted(started)
    lengths = [len(s.tokens) for found in drawn for group in found.groups for s in group.samples]
    assert min(lengths) <= SEGMENT and max(lengths) == LONGEST
    for found in drawn:
        starts = [int(group.samples[0].problem_id.split("/")[0]) for group in found.groups]
        assert starts == sorted(starts) and len(found.groups) == PROMPTS
    assert max(found.row["age"] for found in drawn) > 0 and drawn[0].row["rounds"] > 1


def test_an_answer_is_its_segments_one_after_the_other_each_with_a_key_of_its_own(
    run: tuple[RolloutSource, list],
) -> None:
    made, drawn = run
    by_name = {(r.problem_id, i): r for r in made.answers.engine.asked for i in r.indices}
    assert len({(r.key, i) for (_, i), r in by_name.items()}) == len(by_name)
    assert all(r.sampling.temperature == r.sampling.top_p == 1 for r in made.answers.engine.asked)
    seen = 0
    for group in (group for found in drawn for group in found.groups):
        for sample in group.samples:
            at, pieces = 0, []
            while (f"{sample.problem_id}+{at}", sample.index) in by_name:
                request = by_name[f"{sample.problem_id}+{at}", sample.index]
                assert request.prompt_ids == (*group.problem.prompt_ids, *sample.tokens[:at])
                (piece,) = [s for s in FakeEngine().generate([request]) if s.index == sample.index]
                pieces.append(piece)
                at += len(piece.tokens)
            assert sum((piece.tokens for piece in pieces), ()) == sample.tokens
            assert sum((piece.logp_model for piece in pieces), ()) == sample.logp_model
            assert sample.stop == pieces[-1].stop and (sample.stop == Stop.EOS or at == LONGEST)
            seen = max(seen, len(pieces))
        text = ["x" * sum(sample.tokens) for sample in group.samples]
        assert group.status == tuple(grade(group.problem, t).status for t in text)
    assert seen == -(-LONGEST // SEGMENT)


def test_a_step_that_is_run_again_draws_the_same(run: tuple[RolloutSource, list], tmp_path: Path) -> None:
    made, drawn = run
    again = source(Path(shutil.copytree(made.folder.parent.parent, tmp_path / "again")))
    for number in (STEPS - 1, STEPS):
        found = segments.draw(again, number)
        assert [group.samples for group in found.groups] == [g.samples for g in drawn[number - 1].groups]
        assert found.row == drawn[number - 1].row
    (again.folder / f"underway/{STEPS}.npz").unlink()
    with pytest.raises(UserError, match=f"{STEPS}.npz: found nothing"):
        segments.draw(again, STEPS + 1)


def test_the_engine_holds_prompts_with_most_of_an_answer() -> None:
    assert segment_engine_config(EngineConfig(max_num_seqs=512, prefix_rows=64), 40) == EngineConfig(
        max_num_seqs=512, prefix_rows=512, max_prompt_len=40
    )
