import pytest
from hypothesis import given
from hypothesis import strategies as st

from caev2.errors import ConfigError
from caev2.pretrain.learning.schedule import CosineSchedule
from tests.pretrain.parity import STATISTICS


def test_the_learning_rate_is_the_published_one():
    published = STATISTICS["cosine_schedule"]
    schedule = CosineSchedule(
        peak_lr=published["peak_lr"],
        min_lr=published["min_lr"],
        warmup_steps=published["warmup_epochs"] * published["steps_per_epoch"],
        total_steps=published["epochs"] * published["steps_per_epoch"],
    )
    for step, expected in published["lr_at_step"].items():
        assert schedule.lr_at(int(step)) == pytest.approx(expected, abs=1e-12, rel=0), step


@given(warmup=st.integers(0, 50), rest=st.integers(1, 200))
def test_it_rises_to_the_peak_and_falls_to_the_minimum(warmup, rest):
    schedule = CosineSchedule(peak_lr=1.0, min_lr=0.01, warmup_steps=warmup, total_steps=warmup + rest)
    rates = [schedule.lr_at(step) for step in range(warmup + rest)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert warmup == 0 or rates[0] == 0.0
    assert warmup < 2 or rates[warmup - 1] == 1.0
    assert rates[warmup] == 1.0
    assert schedule.lr_at(warmup + rest + 5) == pytest.approx(0.01)


@pytest.mark.parametrize("change", [{"warmup_steps": 11}, {"warmup_steps": -1}, {"min_lr": 2.0}, {"min_lr": -1.0}])
def test_schedules_that_contradict_themselves_are_refused(change):
    settings = {"peak_lr": 1.0, "min_lr": 0.1, "warmup_steps": 2, "total_steps": 10}
    with pytest.raises(ConfigError):
        CosineSchedule(**(settings | change))
