"""Where memory runs out all the same, sampling goes on once with half of the sequences; a second time is one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from rlvr_limit import cli, records
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.shapes import halved
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import is_out_of_memory
from tests.support import smoke

SHORT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes.\nmore lines"


def drawn_without(smoke_run: Path, folder: Path) -> Path:
    """A copy of a run folder of which no sample was drawn yet."""
    root = Path(shutil.copytree(smoke_run, folder / "run"))
    for table in ("samples", "verdicts", "scores"):
        shutil.rmtree(root / "records" / table, ignore_errors=True)
    return root


def failing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the first engines run out of memory after a few samples; the sequences of each engine that draws."""
    real, seen = Engine.generate, []

    def generate(self: Engine, *args: object) -> Iterator:
        seen.append(self.config.max_num_seqs)
        samples = real(self, *args)
        if len(seen) <= times:
            yield next(samples)
            raise jax.errors.JaxRuntimeError(SHORT)
        yield from samples

    monkeypatch.setattr(Engine, "generate", generate)
    return seen


def command(root: Path) -> list[str]:
    config = f"--config={smoke.REPOSITORY / 'configs/toy/countdown_smoke.py'}"
    return [
        "main",
        config,
        "--config.job=sample",
        f"--config.run_dir={root}",
        "--config.share_samples=False",
        "--config.flush_seconds=0",
    ]


def test_sampling_goes_on_with_half_of_the_sequences_and_loses_and_doubles_nothing(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = drawn_without(smoke_run, tmp_path)
    seen = failing(1, monkeypatch)
    assert cli.main(command(root)) == 0
    assert seen[0] == 64 and set(seen[1:]) == {32}
    assert "out of memory (RESOURCE_EXHAUSTED: Out of memory while" in capsys.readouterr().out
    keys = ["arm", "problem_id", "index"]
    before, after = (records.read(path, "samples", columns=keys).to_pylist() for path in (smoke_run, root))
    assert sorted(map(str, before)) == sorted(map(str, after))


def test_running_out_twice_is_one_line_and_what_was_drawn_is_kept(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = drawn_without(smoke_run, tmp_path)
    failing(2, monkeypatch)
    assert cli.main(command(root)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: out of memory: RESOURCE_EXHAUSTED") and "engine.max_num_seqs" in line
    assert records.read(root, "samples", columns=["arm"]).num_rows >= 2


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        (SHORT, True),
        ("INTERNAL: Error dispatching computation: Out of memory allocating 3309404432 bytes.", True),  # XLA:CPU's
        ("INTERNAL: Error dispatching computation: a bug", False),
    ],
)
def test_xla_s_words_for_memory_that_ran_out_are_known(said: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) == is_memory


def test_half_of_an_engine_keeps_what_decides_a_sample() -> None:
    whole = EngineConfig(64, 8, 32, 4096, (16, 64), prefill_rows=8, max_prompt_len=64)
    half = halved(whole)
    assert (half.max_num_seqs, half.cache_tokens, half.buckets, half.prefill_rows) == (32, 2048, (16,), 4)
    assert (half.steps_per_call, half.page_size) == (8, 32)
