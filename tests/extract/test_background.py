import threading
import time

import pytest

from caev2.extract.background import Abandoned, Background


def test_items_arrive_in_order_and_the_result_comes_back():
    with Background(list, ahead=2) as background:
        for number in range(100):
            background.put(number)
        assert background.finish() == list(range(100))


def test_nothing_put_is_an_empty_list_of_items():
    with Background(list, ahead=2) as background:
        assert background.finish() == []


def test_at_most_so_many_items_wait():
    go, taken = threading.Event(), []

    def slow(items):
        for item in items:
            go.wait()
            taken.append(item)

    with Background(slow, ahead=3) as background:
        putter = threading.Thread(target=lambda: [background.put(number) for number in range(10)])
        putter.start()
        time.sleep(0.3)
        assert putter.is_alive()  # one is in hand, three wait, the fifth is not taken
        go.set()
        putter.join()
        background.finish()
    assert taken == list(range(10))


def test_what_the_function_raises_reaches_whoever_puts_even_if_the_queue_is_full():
    def fails(items):
        next(items)
        raise ZeroDivisionError

    def put_many() -> None:
        with Background(fails, ahead=1) as background:
            for number in range(1000):
                background.put(number)
            background.finish()

    with pytest.raises(ZeroDivisionError):
        put_many()


def test_whoever_leaves_in_the_middle_lets_the_function_clean_up():
    cleaned = []

    def tidy(items):
        try:
            for _ in items:
                pass
        except Abandoned:
            cleaned.append(True)
            raise

    def leave() -> None:
        with Background(tidy, ahead=1) as background:
            background.put(1)
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert cleaned == [True]
