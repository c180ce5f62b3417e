"""Samples belong to what they are, not to the config that asked: what another run has drawn alike is copied, not drawn.

A run folder stays whole by itself: rows are copied into its own tables, with their verdicts where the same grader gave
them on the same reference. Its manifest says of each arm what its samples are ("arms.<arm>.samples", a digest of
study.run_folder.sample_identity) and how it was asked ("arms.<arm>.prompts"), by which other folders find them.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa

from rlvr_limit import records
from rlvr_limit.distributed.work_queue import Work
from rlvr_limit.records.storage import Place, place
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.run_folder import prompt_sha256, sample_identity
from rlvr_limit.study.verdicts import references
from rlvr_limit.types import Problem, Status, UserError

ROWS = 1 << 14
"""Samples that are read at a time, and a problem's more: 3 GB where each has 16,384 tokens."""

BATCH = 256
"""Samples that are put on record at a time."""

JUDGED = (Status.GRADED, Status.NO_ANSWER)
"""Verdicts that are taken; the others say nothing of a sample."""


class _Source(NamedTuple):
    """An arm whose samples are what ours are."""

    root: Place
    arm: str
    variant: str  # of its prompts

    def __str__(self) -> str:
        return f"{self.root} (arm {self.arm})"


class _Twin(NamedTuple):
    """A problem that a source asks in the same words, and which of its samples are to be taken."""

    problem: Problem
    against: str  # what verdicts must have been given against to hold here
    indices: set[int]


def take(
    study: Study,
    entry: EvaluatedArm,
    temperature: float,
    name: str,
    lacking: Callable[[], Work],
    samples: records.Writer,
    verdicts: records.Writer,
) -> int:
    """Copies from other run folders, and from other arms of this one, what an arm lacks by now and they have.

    Returns the number of samples that were copied. The arm's weights must have been loaded. Of several hosts one does
    it, the first to come to this name, and the others wait: nobody draws what is being copied. Killed at any point it
    loses and doubles nothing.
    """
    identity = sample_identity(study, entry, temperature)
    # Who finds the second of these finds the first one too.
    _note(study, f"{entry.name}.prompts", study.setups[entry.arm].variant)
    _note(study, f"{entry.name}.samples", identity)
    if not study.settings.share_samples:
        return 0

    def take_all() -> int:
        total = 0
        # With sampling.adaptive the verdicts that were taken may ask for more.
        while (work := lacking()) and (taken := _take_lacking(study, entry, identity, work, samples, verdicts)):
            total += taken
        return total

    return study.hosts.do_once(f"take/{name}", take_all)


def _take_lacking(
    study: Study,
    entry: EvaluatedArm,
    identity: str,
    work: Work,
    samples: records.Writer,
    verdicts: records.Writer,
) -> int:
    """The number of samples that were copied."""
    left = {problem.id: set(indices) for problem, indices in work}
    against = references(study, study.task)
    wanted, said = sum(map(len, left.values())), []
    for source in _sources(study, entry, identity):
        try:
            twins = _twins(source, [problem for problem, _ in work], left, against)
        except UserError as error:
            logging.warning("%s: nothing is taken from it: %s", source, error)
            continue
        taken = 0
        for some in _chunks(twins):
            try:
                drawn, judged = _rows(source, some, study.task.version)
            except UserError as error:
                logging.warning("%s: no more is taken from it: %s", source, error)
                break
            # A verdict without its sample would judge another one where the source is gone by the next start.
            _append(samples, entry.name, some, drawn)
            _append(verdicts, entry.name, some, judged)
            taken += drawn.num_rows
            for twin in some.values():
                left[twin.problem.id] -= twin.indices
            study.notice.raise_if_preempted()
        if taken:
            said.append(f"{taken:,} of {wanted:,} missing samples taken from {source}")
            print(f"arm {entry.name}: {said[-1]}", flush=True)
    if said:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        _note(study, f"{entry.name}.taken {now}", "; ".join(said))
    return wanted - sum(map(len, left.values()))


def _note(study: Study, fact: str, value: str) -> None:
    """Keeps a fact of an arm in the manifest; host 0 alone writes that, and learns at the end what others noted."""
    study.hosts.check_equal(f"arms.{fact}", value)
    if study.hosts.is_first:
        records.update_manifest(study.root, f"arms.{fact}", value)


def _sources(study: Study, entry: EvaluatedArm, identity: str) -> Iterator[_Source]:
    """Arms of this folder and of the others below config.runs whose samples are of this identity."""
    noted_by_hosts = {f"arms.{fact}": value for fact, value in study.hosts.checked_values("arms.").items()}
    for root in (study.root, *_other_folders(study)):
        try:
            facts = records.read_manifest(root)["facts"] | (noted_by_hosts if root == study.root else {})
        except UserError as error:
            logging.warning("no samples are looked for in %s: %s", root, error)
            continue
        for fact, value in facts.items():
            arm = fact.removeprefix("arms.").removesuffix(".samples")
            if value == identity and fact == f"arms.{arm}.samples" and (root, arm) != (study.root, entry.name):
                yield _Source(root, arm, facts[f"arms.{arm}.prompts"])


def _other_folders(study: Study) -> Iterator[Place]:
    """The other run folders in config.runs and in the folders of the configs there."""
    runs = place(study.settings.runs)
    for outer in sorted(runs.iterdir()) if runs.is_dir() else ():
        if outer.name.startswith(".") or not outer.is_dir():
            continue
        folders = [outer] if (outer / "manifest.json").is_file() else sorted(outer.iterdir())
        for folder in folders:
            if folder.absolute() != study.root.absolute() and (folder / "manifest.json").is_file():
                yield folder


def _twins(
    source: _Source, problems: list[Problem], left: Mapping[str, set[int]], against: Mapping[str, str]
) -> dict[str, _Twin]:
    """By their names in the source, the problems of which it has samples that are left to find."""
    columns = ["problem_id", "prompt_ids", "prompt_sha256"]
    prompts = records.read(source.root, "prompts", columns, {"variant": source.variant}).to_pylist()
    theirs = {row["prompt_sha256"]: row for row in prompts}
    have = records.existing(source.root, "samples", arm=source.arm)
    twins = {}
    for problem in problems:
        row = theirs.get(prompt_sha256(problem))
        if row and tuple(row["prompt_ids"]) == problem.prompt_ids:
            indices = left[problem.id] & have.get(row["problem_id"], set())
            if indices:
                twins[row["problem_id"]] = _Twin(problem, against[problem.id], indices)
    return twins


def _chunks(twins: Mapping[str, _Twin]) -> Iterator[dict[str, _Twin]]:
    """Problems of about ROWS samples together."""
    some, rows = {}, 0
    for name, twin in twins.items():
        some[name] = twin
        rows += len(twin.indices)
        if rows >= ROWS:
            yield some
            some, rows = {}, 0
    if some:
        yield some


def _rows(source: _Source, twins: Mapping[str, _Twin], grader: str) -> tuple[pa.Table, pa.Table]:
    """The samples of a source that are to be taken, and of their verdicts those that hold here too."""

    def chosen(table: str, names: list[str], **where: str | list[str]) -> pa.Table:
        rows = records.read(source.root, table, where={"arm": source.arm, "problem_id": names, **where})
        pairs = zip(rows["problem_id"].to_pylist(), rows["index"].to_pylist(), strict=True)
        return rows.filter(pa.array([index in twins[name].indices for name, index in pairs], pa.bool_()))

    verdicts = chosen("verdicts", list(twins), grader=grader, against=sorted({twin.against for twin in twins.values()}))
    columns = (verdicts[name].to_pylist() for name in ("problem_id", "against", "status"))
    holds = [
        twins[name].against == against and status in JUDGED for name, against, status in zip(*columns, strict=True)
    ]
    return chosen("samples", list(twins)), verdicts.filter(pa.array(holds, pa.bool_()))


def _append(writer: records.Writer, arm: str, twins: Mapping[str, _Twin], rows: pa.Table) -> None:
    """Puts rows of a source on record under our names."""
    ids = [twins[name].problem.id for name in rows["problem_id"].to_pylist()]
    for name, values in {"arm": [arm] * len(ids), "problem_id": ids}.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    for batch in rows.combine_chunks().to_batches(max_chunksize=BATCH):
        writer.append_batch(batch)
    writer.flush()
