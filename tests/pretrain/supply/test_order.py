import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caev2.pretrain.supply.order import RowOrder

GOLDEN_ROWS = [10, 14, 12, 6, 0, 4, 8, 2]
GOLDEN_VIEWS = [3, 2, 0, 1]


def order_of(rows: int = 10, views: int = 3, batch_size: int = 3, epochs: int = 7, seed: int = 0) -> RowOrder:
    return RowOrder(rows=np.arange(rows) * 2, views=views, batch_size=batch_size, epochs=epochs, seed=seed)


@given(rows=st.integers(1, 60), batch=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_an_epoch_uses_a_row_at_most_once_and_drops_less_than_a_batch(rows, batch, seed):
    order = order_of(rows=max(rows, batch), batch_size=batch, epochs=2, seed=seed)
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        assert {order.epoch_of(step) for step in steps} == {epoch}
        used = np.concatenate([order.rows_of(step) for step in steps])
        assert len(set(used.tolist())) == len(used)
        assert set(used.tolist()) <= set(order.rows.tolist())
        assert 0 <= len(order.rows) - len(used) < batch


def test_epochs_and_seeds_have_permutations_of_their_own():
    order = order_of(rows=50, batch_size=50)
    assert not np.array_equal(order.rows_of(0), order.rows_of(1))
    assert not np.array_equal(order.rows_of(0), order_of(rows=50, batch_size=50, seed=1).rows_of(0))


def test_a_step_is_the_same_whatever_was_asked_before():
    order = order_of()
    forward = [order.rows_of(step).tolist() for step in range(order.total_steps)]
    backward = [pickle.loads(pickle.dumps(order)).rows_of(step).tolist() for step in reversed(range(21))]
    assert order.total_steps == 21
    assert forward == backward[::-1]


@given(views=st.integers(1, 9), seed=st.integers(0, 2**40))
def test_every_cycle_uses_every_view_once(views, seed):
    order = order_of(rows=3, batch_size=3, views=views, epochs=4 * views, seed=seed)
    used = [order.view_of(step) for step in range(order.total_steps)]
    for cycle in range(4):
        assert sorted(used[cycle * views : (cycle + 1) * views]) == list(range(views))


def test_cycles_have_permutations_of_their_own():
    order = order_of(rows=3, batch_size=3, views=8, epochs=16)
    assert [order.view_of(step) for step in range(8)] != [order.view_of(step) for step in range(8, 16)]


def test_the_first_rows_are_what_they_have_always_been():
    """Golden: this project's own first draws. Runs could not be resumed if they changed."""
    order = order_of(rows=8, batch_size=8)
    assert order.rows_of(0).tolist() == GOLDEN_ROWS
    assert [order_of(views=4).view_of(3 * epoch) for epoch in range(4)] == GOLDEN_VIEWS


def window_of(rows: int = 40, block: int = 8, blocks: int = 2, batch_size: int = 5, seed: int = 0) -> RowOrder:
    valid = np.delete(np.arange(rows), [3, 17])  # as in a store of which two images cannot be decoded
    return RowOrder(
        rows=valid,
        views=2,
        batch_size=batch_size,
        epochs=3,
        seed=seed,
        ordering="window",
        block_images=block,
        window_blocks=blocks,
    )


@given(rows=st.integers(20, 90), block=st.integers(1, 30), blocks=st.integers(1, 9), seed=st.integers(0, 2**40))
def test_windows_use_every_row_at_most_once_and_few_blocks_at_a_time(rows, block, blocks, seed):
    order = window_of(rows=rows, block=block, blocks=blocks, batch_size=1, seed=seed)
    used = np.concatenate([order.rows_of(step) for step in range(order.steps_per_epoch)])
    assert sorted(used.tolist()) == order.rows.tolist()
    of_block = used // block
    begun = [int(np.flatnonzero(of_block == one)[0]) for one in dict.fromkeys(of_block.tolist())]
    ended = [int(np.flatnonzero(of_block == one)[-1]) for one in dict.fromkeys(of_block.tolist())]
    for place in range(len(used)):
        assert sum(one <= place <= other for one, other in zip(begun, ended, strict=True)) <= blocks


def test_windows_of_epochs_and_seeds_differ_and_mix_their_blocks():
    order = window_of(rows=400, block=50, blocks=4, batch_size=20)
    first = [order.rows_of(step).tolist() for step in range(order.steps_per_epoch)]
    second = [order.rows_of(step + order.steps_per_epoch).tolist() for step in range(order.steps_per_epoch)]
    other = window_of(rows=400, block=50, blocks=4, batch_size=20, seed=1)
    assert first != second
    assert first != [other.rows_of(step).tolist() for step in range(other.steps_per_epoch)]
    assert all(len({row // 50 for row in batch}) > 1 for batch in first)
    assert pickle.loads(pickle.dumps(order)).rows_of(3).tolist() == first[3]


GOLDEN_WINDOW = [12, 4, 14, 5, 13, 16, 15, 18, 19, 7]


def test_the_window_order_is_frozen():
    order = window_of(rows=20, block=3, blocks=2, batch_size=10)
    assert order.rows_of(0).tolist() == GOLDEN_WINDOW
