"""What is read from optimised HLO, against a program written by hand."""

from __future__ import annotations

import pytest

from tests.support import hlo

SUM = """\
  %add = f32[] add(%x, %y)
}
"""
PROGRAM = f"""HloModule jit_decode_window

%sum (x: f32[], y: f32[]) -> f32[] {{
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
{SUM}
%fused_copy (p: bf16[8,16]) -> bf16[8,16] {{
  %p = bf16[8,16]{{1,0}} parameter(0)
  ROOT %c = bf16[8,16]{{0,1}} copy(%p)
}}

%fused_update (p.1: bf16[8,16], q: bf16[1,16], i.1: s32[]) -> bf16[8,16] {{
  %p.1 = bf16[8,16]{{1,0}} parameter(0)
  %q = bf16[1,16]{{1,0}} parameter(1)
  %i.1 = s32[] parameter(2)
  ROOT %u = bf16[8,16]{{1,0}} dynamic-update-slice(%p.1, %q, %i.1, %i.1)
}}

%inner_body (a: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %a = (s32[], f32[4]{{0}}) parameter(0)
  %g = f32[4]{{0}} get-tuple-element(%a), index=1
  %r = f32[4]{{0}} all-reduce(%g), replica_groups={{}}, to_apply=%sum
  ROOT %t = (s32[], f32[4]{{0}}) tuple(%n, %r)
}}

%inner_condition (a.1: (s32[], f32[4])) -> pred[] {{
  %a.1 = (s32[], f32[4]{{0}}) parameter(0)
  %bound = s32[]{{:T(128)}} constant(31)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}}

%body (b: (s32[], bf16[8,16], f32[4])) -> (s32[], bf16[8,16], f32[4]) {{
  %b = (s32[], bf16[8,16]{{1,0:T(8,128)(2,1)}}, /*index=2*/f32[4]{{0}}) parameter(0)
  %cache = bf16[8,16]{{1,0}} get-tuple-element(%b), index=1
  %copied = bf16[8,16]{{0,1}} fusion(%cache), kind=kLoop, calls=%fused_copy
  %updated = bf16[8,16]{{1,0}} fusion(%cache, %row, %n.1), kind=kLoop, calls=%fused_update
  %start = (f32[4]{{0}}, f32[16]{{0}}) all-gather-start(%v), dimensions={{0}}
  %done = f32[16]{{0}} all-gather-done(%start)
  %inner = (s32[], f32[4]{{0}}) while(%z), condition=%inner_condition, body=%inner_body
  ROOT %out = (s32[], bf16[8,16]{{1,0}}, f32[4]{{0}}) tuple(%n.1, %updated, %v)
}}

%condition (b.1: (s32[], bf16[8,16], f32[4])) -> pred[] {{
  %b.1 = (s32[], bf16[8,16]{{1,0}}, f32[4]{{0}}) parameter(0)
  %steps = s32[] constant(4)
  ROOT %before = pred[] compare(%j, %steps), direction=LT
}}

ENTRY %main (c: bf16[8,16]) -> bf16[8,16] {{
  %c.1 = bf16[8,16]{{1,0}} parameter(0)
  %first = bf16[8,16]{{1,0}} copy(%c.1)
  %loop = (s32[], bf16[8,16]{{1,0}}, f32[4]{{0}}) while(%s), condition=%condition, body=%body
  ROOT %end = bf16[8,16]{{1,0}} get-tuple-element(%loop), index=1
}}
"""

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def test_loop_report_counts_what_runs_in_a_step() -> None:
    """The inner loop's all-reduce runs 31 times; an update in place is no new array, a copy in a fusion is one."""
    found = hlo.token_loop(PROGRAM, 4, 8 * 16 * 2, MESH)
    assert found.turns == 4
    assert found.collectives == (("all-gather", 1.0), ("all-reduce", 31.0))
    assert found.sent == 31 * 16 + 64
    assert (found.big_writes_step, found.big_writes_window) == (1.0, 1)
    assert hlo.token_loop(PROGRAM, 4, 8 * 16 * 2 + 1, MESH).big_writes_step == 0


def test_unrolled_loop_counts_the_same_a_step() -> None:
    """Two steps a turn: a loop of 4 turns is a window of 8."""
    found = hlo.token_loop(PROGRAM, 8, 256, MESH)
    assert found.collectives == (("all-gather", 0.5), ("all-reduce", 15.5))
    assert found.big_writes_step == 0.5


def test_a_loop_that_ends_when_the_data_says_so_has_no_known_length() -> None:
    text = PROGRAM.replace("%steps = s32[] constant(4)", "%steps = s32[] get-tuple-element(%b.1), index=0")
    found = hlo.token_loop(text, 4, 256, MESH)
    assert found.turns is None and found.collectives == (("all-gather", 1.0), ("all-reduce", 31.0))


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}, use_global_device_ids=true", ("fsdp",)),
        ("replica_groups=[4,2]<=[8]", ("tensor",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("data",)),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", ("fsdp",)),
        ("replica_groups=[2,4]<=[8]", ("fsdp", "tensor")),
        ("replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}", ()),
        ("channel_id=1, source_target_pairs={{0,4},{4,0}}", ("data",)),
        ("replica_groups={}", ("data", "fsdp", "tensor")),
        ("replica_groups=mesh['axis_0'=8] {'axis_0'}", ("data", "fsdp", "tensor")),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_2'=4] {'axis_1'}", ("data",)),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", ("fsdp", "tensor")),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'c','a'}", ("data", "tensor")),
    ],
)
def test_axes_are_those_along_which_members_of_a_group_differ(groups: str, axes: tuple[str, ...]) -> None:
    """Device d is at (d // 4, d // 2 % 2, d % 2); a line without groups means all of them."""
    text = PROGRAM.replace("replica_groups={}", groups).replace("dimensions={0}", f"{groups}, dimensions={{0}}")
    assert hlo.token_loop(text, 4, 256, MESH).axes == axes
    assert hlo.sends(text, MESH).axes == axes


def test_a_whole_program_sends_what_its_loops_send_as_often_as_they_run() -> None:
    found = hlo.sends(PROGRAM, MESH)
    assert found.collectives == (("all-gather", 4.0), ("all-reduce", 124.0)) and found.sent == 4 * (31 * 16 + 64)


def counted(text: str, name: str, cycles: int) -> str:
    """The text with cycles on the line of that name, as XLA:TPU writes them."""
    line = next(line for line in text.splitlines() if f" %{name} = " in line)
    config = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}","iteration_bounds":["1"]}}}}'
    return text.replace(line, f"{line}, {config}")


def test_cycles_of_a_step_are_those_of_its_loop_with_what_inner_loops_repeat() -> None:
    """The inner loop's sum runs 31 times; what is outside of the token loop or inside of a fusion counts nothing."""
    text = PROGRAM
    for name, cycles in (("copied", 1000), ("updated", 200), ("r", 7), ("first", 10**6), ("u", 10**6)):
        text = counted(text, name, cycles)
    assert hlo.token_loop(text, 4, 256, MESH).cycles == 1000 + 200 + 31 * 7
    assert hlo.token_loop(text, 8, 256, MESH).cycles == (1000 + 200 + 31 * 7) / 2
    assert hlo.token_loop(PROGRAM, 4, 256, MESH).cycles is None


def test_what_is_fetched_beside_a_step_is_what_asynchronous_copies_and_slices_write() -> None:
    moves = """\
  %fetched = (bf16[8,16]{1,0:S(1)}, bf16[8,16]{1,0}, u32[]{:S(2)}) copy-start(%cache)
  %part = ((bf16[8,16]{1,0}), bf16[2,16]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%cache), slice={[0:2], [0:16]}
  %inner ="""
    text = counted(PROGRAM.replace("  %inner =", moves), "copied", 1000)
    assert hlo.token_loop(text, 4, 256, MESH).moved == 8 * 16 * 2 + 2 * 16 * 2
    # Where no cycles are counted there is nothing that they could stand beside.
    assert hlo.token_loop(PROGRAM.replace("  %inner =", moves), 4, 256, MESH).moved == 0


def test_a_program_without_a_loop_has_a_windows_share_of_its_cycles() -> None:
    text = counted(PROGRAM.replace("while(%s), condition=%condition, body=%body", "opt-barrier(%s)"), "first", 1000)
    assert hlo.token_loop(text, 4, 256, MESH).cycles == 1000 / 4


def test_of_branches_the_one_with_most_cycles_counts() -> None:
    branches = """\
%short (p.9: f32[4]) -> f32[4] {
  %a.9 = f32[4]{0} negate(%p.9)
}

%long (p.8: f32[4]) -> f32[4] {
  %a.8 = f32[4]{0} negate(%p.8)
}

%body ("""
    text = PROGRAM.replace("%body (", branches).replace(
        "  %inner =", "  %either = f32[4]{0} conditional(%i, %v, %v), branch_computations={%short, %long}\n  %inner ="
    )
    text = counted(counted(text, "a.9", 30), "a.8", 500)
    assert hlo.token_loop(text, 4, 256, MESH).cycles == 500
