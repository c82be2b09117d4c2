"""Counters: what counts, what does not, and that no part is lost or counted twice."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plant.assets import closest, is_within
from plant.counters import Counter, CounterRule, step

S = 1_000_000_000
WORD = CounterRule(maximum=65535, max_step_per_s=100)


def feed(counter: Counter, values, start=0, period=S):
    times = start + period * np.arange(len(values), dtype=np.int64)
    counts, anomalies = counter.take(times, np.array(values, np.float64))
    return sum(parts for _, parts in counts), anomalies


def test_a_rollover_counts_across_the_maximum():
    assert step(65530, 5, 1.0, WORD) == (11, "")
    assert step(2**32 - 2, 3, 1.0, CounterRule(maximum=2**32 - 1)) == (5, "")
    assert step(998, 1, 1.0, CounterRule(maximum=999)) == (3, "")


def test_a_reset_counts_nothing_and_is_told():
    assert step(40000, 3, 1.0, WORD) == (0.0, "reset")
    assert step(40000, 3, 1.0, CounterRule(maximum=65535)) == (0.0, "reset")
    assert step(40000, 3, 1.0, CounterRule()) == (0.0, "reset")
    # Even if hours passed, half the range is too much to tell a rollover from a reset.
    assert step(30000, 3, 36_000.0, WORD) == (0.0, "reset")


def test_an_implausible_jump_forward_counts_nothing():
    assert step(10, 50_000, 1.0, WORD) == (0.0, "implausible_step")
    assert step(10, 50_000, 1000.0, WORD) == (49_990, "")


def test_a_value_outside_the_stated_range_is_no_rollover():
    assert step(70_000, 5, 1.0, WORD) == (0.0, "reset")
    assert step(5, -3, 1.0, WORD) == (0.0, "reset")


def test_counting_goes_on_from_the_new_value_after_a_reset():
    counter = Counter(WORD)
    total, anomalies = feed(counter, [40_000, 40_002, 3, 3, 5])
    assert total == 4
    assert [(a.kind, a.before, a.after, a.start, a.time) for a in anomalies] == [("reset", 40_002, 3, S, 2 * S)]


def test_the_first_value_ever_counts_nothing_and_the_first_after_a_restart_counts_the_difference():
    assert feed(Counter(WORD), [500])[0] == 0
    assert feed(Counter(WORD, raw=500, time=0), [530], start=60 * S) == (30, [])
    assert feed(Counter(WORD, raw=65_530, time=0), [20], start=60 * S) == (26, [])


def test_values_that_are_no_numbers_are_passed_over():
    assert feed(Counter(WORD), [1, np.nan, np.inf, 3])[0] == 2
    assert feed(Counter(WORD), [np.nan]) == (0, [])


@given(
    steps=st.lists(st.integers(0, 300), max_size=60),
    first=st.integers(0, 65535),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_any_split_into_batches_and_restarts_counts_every_part_once(steps, first, cuts):
    rule = CounterRule(maximum=65535, max_step_per_s=300)
    values = [(first + total) % 65536 for total in np.cumsum([0, *steps]).tolist()]
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    counter = Counter(rule)
    total = 0.0
    for low, high in pairwise(edges):
        counter = Counter(rule, counter.raw, counter.time)
        parts, anomalies = feed(counter, values[low:high], start=low * S)
        assert anomalies == []
        total += parts
    assert total == sum(steps)


@given(st.lists(st.floats(0, 1e9), max_size=40))
def test_nothing_is_ever_subtracted(values):
    counts, _ = Counter(WORD).take(np.arange(len(values), dtype=np.int64) * S, np.array(values))
    assert all(parts > 0 for _, parts in counts)


@pytest.mark.parametrize("prefix", ["", "a", "a/b"])
def test_an_asset_is_within_its_prefixes_only(prefix):
    assert is_within("a/b", prefix)
    assert not is_within("a/bc", "a/b")
    assert closest("a/b/c", ["a", "a/b", "x"]) == 3
    assert closest("a/b/c", ["x"]) == -1
    assert closest("a/b/c", []) == 0
