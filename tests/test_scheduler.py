"""Slots and prefix rows under any order of releases."""

from hypothesis import example, given
from hypothesis import strategies as st

from rlvr_limit.scheduler import Scheduler, Work

COUNTS = st.lists(st.integers(0, 7), max_size=12)


def drive(scheduler, slots, choose):
    """Runs the scheduler as a sampler does: prefill, admit, release some, until a call brings nothing and none live.

    choose(live slots) says which to release. Returns the admitted Work in order. Along the way it holds that a slot is
    free when it is filled, and that a row still holds the sample's own prompt once the call's prefills are done.
    """
    admitted, live, prompt_of_row = [], {}, {}
    while True:
        prefills, admissions = scheduler.admit()
        if not admissions and not live:
            return admitted
        rows = [row for row, _ in prefills]
        assert len(rows) == len(set(rows))
        prompt_of_row.update(prefills)
        for admission in admissions:
            assert 0 <= admission.slot < slots and admission.slot not in live
            assert prompt_of_row[admission.row] == admission.work.request
            live[admission.slot] = admission.work
            admitted.append(admission.work)
        assert scheduler.live == live
        for slot in choose(sorted(live)):
            assert scheduler.release(slot) == live.pop(slot)


@given(st.integers(1, 9), st.integers(1, 5), COUNTS, st.randoms(use_true_random=False))
@example(1, 1, [1, 1], None)
@example(4, 2, [0, 0, 0, 1], None)
def test_every_sample_is_admitted_exactly_once_in_order_for_any_release_order(slots, rows, counts, random):
    def choose(live):
        return live if random is None else random.sample(live, random.randint(1, len(live)))

    work = [(request, range(n)) for request, n in enumerate(counts)]
    admitted = drive(Scheduler(slots, rows, work), slots, choose)
    assert admitted == [Work(request, index) for request, n in enumerate(counts) for index in range(n)]


@given(st.integers(1, 9), st.integers(1, 5), COUNTS)
def test_a_call_fills_every_slot_that_rows_and_work_allow(slots, rows, counts):
    _, admissions = Scheduler(slots, rows, [(request, range(n)) for request, n in enumerate(counts)]).admit()
    in_reach = [n for n in counts if n][:rows]
    assert len(admissions) == min(slots, sum(in_reach))


def test_a_prompt_is_prefilled_once_however_many_samples_and_calls_it_takes():
    scheduler = Scheduler(2, 3, [(0, range(7)), (1, range(2))])
    prefilled = []
    while True:
        prefills, admissions = scheduler.admit()
        prefilled += [request for _, request in prefills]
        if not admissions:
            break
        for admission in admissions:
            scheduler.release(admission.slot)
    assert prefilled == [0, 1]


def test_a_row_that_a_sample_of_this_call_reads_is_not_handed_out_again_in_it():
    scheduler = Scheduler(8, 2, [(request, [0]) for request in range(5)])
    calls = []
    for _ in range(3):
        prefills, admissions = scheduler.admit()
        calls.append(([request for _, request in prefills], [a.work.request for a in admissions]))
    assert calls == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4], [4])]


def test_requests_and_indices_are_read_only_as_slots_free_up():
    read = []

    def work():
        for request in range(100):
            read.append(request)
            yield request, iter([0, 1])

    scheduler = Scheduler(4, 64, work())
    assert read == []
    scheduler.admit()
    assert read == [0, 1]
    scheduler.admit()
    assert read == [0, 1]
    scheduler.release(3)
    scheduler.admit()
    assert read == [0, 1, 2]
    indices = iter(range(100))
    assert len(Scheduler(3, 1, [(0, indices)]).admit()[1]) == 3
    assert next(indices) == 3
