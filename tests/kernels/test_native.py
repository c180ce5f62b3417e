"""C++ kernels are built once for a machine, and do without where they cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import jax.numpy as jnp
import pytest

from kernels import native, selfcheck
from kernels.decode_attention import warn_where_plain


@pytest.fixture
def compiler() -> str:
    try:
        return native.compiler()
    except native.BuildError:
        pytest.skip("no C++ compiler")


@pytest.fixture
def asked_anew():
    """library() looks anew, and after the test again."""
    native._found.cache_clear()
    yield
    native._found.cache_clear()


def test_without_a_compiler_plain_xla_is_taken_and_one_line_says_so(asked_anew, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.WARNING):
        assert not native.ready() and not native.ready()
    (line,) = caplog.messages
    assert "plain XLA" in line and "found none of c++, g++, clang++" in line


def test_where_nothing_can_be_written_plain_xla_is_taken(asked_anew, compiler, monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert not native.ready()
    assert "Not a directory" in caplog.text


def test_what_the_compiler_says_is_told(compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "FLAGS", ("-std=c++98", "-fPIC", "-shared"))
    with pytest.raises(native.BuildError, match="ended with 1: .*error"):
        native.built(compiler, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_library_is_built_once_and_anew_for_other_flags(compiler, monkeypatch, tmp_path):
    commands: list[list[str]] = []

    def run(command: list[str]) -> str:
        commands.append(command)
        if "-o" in command:
            Path(command[-1]).touch()
        return "macros"

    monkeypatch.setattr(native, "_run", run)
    first = native.built(compiler, tmp_path)
    assert native.built(compiler, tmp_path) == first and sum("-o" in c for c in commands) == 1
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-O1"))
    assert native.built(compiler, tmp_path) != first
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".so", ".so"]


def test_the_self_check_looks_at_a_build_once(monkeypatch, tmp_path):
    looked: list[str] = []
    monkeypatch.setattr(native, "library", lambda: tmp_path / "built.so")
    monkeypatch.setattr(selfcheck, "cases", lambda: iter([("top_p", *[None] * 4)]))
    monkeypatch.setattr(selfcheck, "compare", lambda name, *_: looked.append(name))
    selfcheck.check()
    selfcheck.check()
    assert looked == ["top_p"]


def test_what_no_kernel_takes_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            warn_where_plain(jnp.zeros((16, 1, 3, 8)), jnp.zeros((2, 1, 8, 7)), 8)
    (line,) = [line for line in caplog.messages if "decode attention in plain XLA" in line]
    assert "no kernel for cpu takes pages of 7 float32 tokens, 3 float32 queries a key head" in line
