from hypothesis import given
from hypothesis import strategies as st

from caev2.extract.engines.foreman import MOST_DEATHS, Foreman


@given(
    blocks=st.lists(st.integers(0, 50), unique=True, max_size=20),
    turns=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "ask", "finish", "die"])), max_size=80),
)
def test_every_block_is_computed_whoever_dies(blocks, turns):
    foreman, at_work, done = Foreman(blocks), {"a": [], "b": [], "c": []}, []
    for worker, turn in [*turns, *[("a", "ask"), ("a", "finish")] * 60]:
        if turn == "ask" and (block := foreman.ask(worker)) is not None:
            at_work[worker].append(block)
        elif turn == "finish" and at_work[worker]:
            done.append(at_work[worker].pop(0))
        elif turn == "die":
            assert foreman.take_back(worker, done) == at_work[worker]
            at_work[worker] = []
    unfinished = [block for worker in "bc" for block in at_work[worker]]
    assert sorted([*done, *unfinished]) == sorted(blocks)  # each once: what is done is not handed out again
    assert foreman.is_idle()


def test_what_a_lost_worker_had_comes_before_what_nobody_began():
    foreman = Foreman([3, 4, 5, 6])
    assert [foreman.ask("a"), foreman.ask("a"), foreman.ask("b")] == [3, 4, 5]
    assert foreman.take_back("a", [3]) == [4]
    assert [foreman.ask("c"), foreman.ask("c"), foreman.ask("c")] == [4, 6, None]


def test_it_is_over_when_all_who_were_given_something_have_left():
    foreman = Foreman([1])
    foreman.ask("a")
    assert foreman.is_idle()
    assert not foreman.is_over()
    foreman.leave("a")
    assert foreman.is_over()


def test_a_block_that_kills_whoever_begins_it_is_named():
    foreman = Foreman([7, 8])
    for number in range(MOST_DEATHS):
        assert foreman.deadly() is None
        assert foreman.ask(str(number)) == 7
        assert foreman.ask(str(number)) == 8
        foreman.take_back(str(number), [])
    assert foreman.deadly() == 7
