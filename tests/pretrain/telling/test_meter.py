"""Speed, as a run tells it."""

import pytest

from caev2.pretrain.foresight.cost import mfu
from caev2.pretrain.telling.meter import Meter


def measured(**options) -> dict[str, float]:
    meter = Meter(8, **options)
    for _ in meter.waiting(iter("abc")):  # type: ignore[arg-type]
        meter.count_step()
    return meter.read()


def test_only_the_loader_is_waited_for():
    now = [0.0]

    def load():
        for batch in "abc":
            now[0] += 1.0
            yield batch

    meter = Meter(8, clock=lambda: now[0])
    for _ in meter.waiting(load()):  # type: ignore[arg-type]
        now[0] += 4.0
        meter.count_step()
    assert meter.read() == {"images_per_s": 1.6, "data_wait_percent": 20.0}


def test_neither_the_first_step_nor_anything_but_training_counts():
    now = [0.0]
    meter = Meter(8, clock=lambda: now[0])
    now[0] += 100.0
    meter.count_step()
    assert meter.read() == {}
    for _ in range(2):
        now[0] += 2.0
        meter.count_step()
        with meter.resting():
            now[0] += 50.0
    assert meter.read()["images_per_s"] == 4.0


def test_the_share_of_the_peak_follows_from_the_rate():
    figures = measured(gmac=12.1, peak_flops=1e15)
    assert figures["mfu_percent"] == pytest.approx(100 * mfu(12.1, figures["images_per_s"], 1e15), abs=0.06)
    assert 0 <= figures["data_wait_percent"] <= 100


@pytest.mark.parametrize("options", [{}, {"gmac": 12.1}, {"gmac": 12.1, "peak_flops": None}])
def test_no_share_is_told_of_a_device_whose_peak_is_not_known(options):
    assert measured(**options).keys() == {"images_per_s", "data_wait_percent"}
