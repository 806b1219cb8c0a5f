"""Hand-offs and statistics: bounded, whatever happens."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.handoff import Handoff
from edgekit_runtime.stats import Histogram, Meter


def test_put_waits_and_loses_nothing():
    handoff: Handoff[int] = Handoff(2)

    def give():
        for number in range(50):
            handoff.put(number)
        handoff.close()

    giver = threading.Thread(target=give)
    giver.start()
    taken = []
    while not handoff.exhausted:
        item = handoff.get(1)
        if item is not None:
            taken.append(item)
    giver.join()
    assert taken == list(range(50))
    assert handoff.dropped == 0


def test_offer_keeps_the_newest_and_counts_the_rest():
    handoff: Handoff[int] = Handoff(1)
    for number in range(10):
        handoff.offer(number)
    assert handoff.get(0) == 9
    assert handoff.dropped == 9
    assert handoff.get(0) is None


def test_closing_wakes_a_waiting_giver():
    handoff: Handoff[int] = Handoff(1)
    handoff.put(1)
    answers = []
    giver = threading.Thread(target=lambda: answers.append(handoff.put(2)))
    giver.start()
    handoff.close()
    giver.join(5)
    assert answers == [False]
    assert handoff.get(0) == 1, "what was handed over before is still there"


def test_put_gives_up_in_time():
    handoff: Handoff[int] = Handoff(1)
    handoff.put(1)
    assert handoff.put(2, timeout_s=0.01) is False


@given(st.lists(st.floats(0.02, 1e5), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_right_to_two_percent(durations: list[float], share: float):
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = sorted(durations)[max(-(-int(share * 100) * len(durations) // 100), 1) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.021)


@pytest.mark.parametrize("duration", [0.0, -1.0, 1e-9, 1e12])
def test_odd_durations_fit_somewhere(duration: float):
    histogram = Histogram()
    histogram.add(duration)
    assert histogram.quantile(0.5) > 0


def test_meter_counts_from_the_first_frame():
    meter = Meter(time.monotonic())
    assert meter.stats(0, "running", "").first_result_s is None
    for _ in range(5):
        meter.add(time.monotonic() - 0.05, 4.0)
    stats = meter.stats(2, "running", "")
    assert (stats.frames, stats.dropped, stats.state) == (5, 2, "running")
    assert stats.age_p50_ms >= 49
    assert stats.inference_p50_ms == pytest.approx(4.0, rel=0.02)
    assert stats.first_result_s is not None
