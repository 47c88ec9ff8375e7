"""The choice of a step's training rows."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hyperformer.training.sampling import (
    GROUPED_BATCHES,
    Permutations,
    TaskSampler,
    compute_task_shares,
    group_by_length,
    raise_shares,
)

ROWS = [400, 40, 7]


def make_sampler(rows=ROWS, weights=None, temperature=10.0, batch_size=6, seed=0, steps=60) -> TaskSampler:
    counts, weights = (dict(enumerate(values)) for values in (rows, weights or [1.0] * len(rows)))
    shares = compute_task_shares(counts, weights, temperature)
    return TaskSampler([np.full(count, 9) for count in rows], list(shares.values()), seed, steps, batch_size)


def test_each_pass_of_a_permutation_holds_every_row_once_in_another_order():
    order = Permutations(17, 3, 1)
    passes = order[np.arange(3 * 17)].reshape(3, 17).tolist()
    assert all(sorted(rows) == list(range(17)) for rows in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_a_permutation_is_a_pure_function_of_seed_stream_and_position():
    positions = np.array([40, 3, 16, 17, 0, 40, 5])
    order = Permutations(17, 3, 1)
    assert order[positions].tolist() == [Permutations(17, 3, 1)[np.array([p])].item() for p in positions]
    first = order[np.arange(17)].tolist()
    assert first != Permutations(17, 4, 1)[np.arange(17)].tolist()
    assert first != Permutations(17, 3, 2)[np.arange(17)].tolist()


def test_a_steps_rows_are_a_pure_function_of_seed_and_step():
    forward = make_sampler()
    steps = [forward[step] for step in range(60)]
    for step in (59, 0, 31, 30, 59):
        assert forward[step] == steps[step] == make_sampler()[step]
    other = make_sampler(seed=1)
    assert [other[step] for step in range(60)] != steps


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one():
    short, long = make_sampler(steps=20), make_sampler(steps=60)
    assert [long[step] for step in range(20)] == [short[step] for step in range(20)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_tasks_are_drawn_in_proportion_to_rows_to_the_power_of_one_over_the_temperature(temperature):
    powers = [rows ** (1 / temperature) for rows in ROWS]
    shares = [power / sum(powers) for power in powers]
    sampler = make_sampler(temperature=temperature, batch_size=50, steps=400)
    counts = Counter(task for step in range(400) for task, _ in sampler[step])
    for task, share in enumerate(shares):
        assert sampler.shares[task] == pytest.approx(share)
        assert counts[task] / 20_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5)


@pytest.mark.parametrize(("temperature", "expected"), [(1e-6, [0, 1]), (float("inf"), [0.5, 0.5])])
def test_the_extremes_of_the_temperature_are_the_largest_task_and_equal_shares(temperature, expected):
    shares = compute_task_shares({"a": 10, "b": 1000}, {"a": 1.0, "b": 1.0}, temperature)
    assert list(shares.values()) == pytest.approx(expected)


def test_at_temperature_one_tasks_are_drawn_in_proportion_to_their_rows():
    assert make_sampler(temperature=1.0).shares.tolist() == pytest.approx([rows / sum(ROWS) for rows in ROWS])


def test_a_weight_multiplies_a_tasks_share():
    plain, weighted = make_sampler().shares, make_sampler(weights=[1.0, 3.0, 1.0]).shares
    assert weighted[1] / weighted[0] == pytest.approx(3 * plain[1] / plain[0])
    assert weighted[2] / weighted[0] == pytest.approx(plain[2] / plain[0])


def test_every_row_of_a_task_is_seen_once_a_pass():
    sampler = make_sampler()
    seen = {task: [] for task in range(3)}
    for step in range(60):
        for task, row in sampler[step]:
            seen[task].append(row)
    assert len(seen[2]) > 3 * 7
    for task, count in enumerate(ROWS):
        for start in range(0, len(seen[task]), count):
            rows = seen[task][start : start + count]
            assert len(set(rows)) == len(rows)
        assert set(seen[task]) <= set(range(count))
    assert sorted(seen[2][:7]) == list(range(7))


def test_batches_of_similar_length_hold_every_row_once_and_little_padding():
    lengths = [int(length) for length in np.random.default_rng(0).integers(3, 60, 1000)]
    order = group_by_length(lengths, 8, 0)
    assert sorted(order.tolist()) == list(range(1000))
    batches = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 1000, 8)]
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 8
    assert np.mean(np.diff([batch[0] for batch in batches]) > 0) < 0.7  # not from short to long


def test_rows_stay_within_their_window_of_batches_and_an_incomplete_batch_stays_last():
    order = group_by_length(list(range(300, 0, -1)), 8, 0)
    window = 8 * GROUPED_BATCHES
    assert [set(order[start : start + window]) for start in (0, window)] == [
        set(range(window)),
        set(range(window, 2 * window)),
    ]
    assert set(order[-4:]) == set(range(256, 260))  # the longest of the last window


def test_a_token_budget_splits_the_same_draws_into_batches_that_just_fit():
    lengths = [np.random.default_rng(task).integers(3, 40, count) for task, count in enumerate(ROWS)]
    shares = [0.5, 0.3, 0.2]
    by_rows = TaskSampler(lengths, shares, 0, 50, batch_size=20)
    by_tokens = TaskSampler(lengths, shares, 0, 50, batch_tokens=120)
    stream = [row for step in range(50) for row in by_rows[step]]
    batches = [by_tokens[step] for step in range(50)]
    assert [row for batch in batches for row in batch] == stream[: sum(map(len, batches))]
    sizes = [[int(lengths[task][row]) for task, row in batch] for batch in batches]
    assert all(sum(batch) <= 120 for batch in sizes)
    assert all(sum(batch) + following[0] > 120 for batch, following in pairwise(sizes))
    assert len({len(batch) for batch in batches}) > 1


def test_a_row_over_the_budget_is_a_separate_batch():
    sampler = TaskSampler([np.full(5, 50)], [1.0], 0, 10, batch_tokens=10)
    assert [len(sampler[step]) for step in range(10)] == [1] * 10
    assert sorted(sampler[step][0][1] for step in range(5)) == list(range(5))


def test_a_batch_of_many_short_rows_is_full_in_every_step():
    sampler = TaskSampler([np.full(7, 2), np.full(9, 2)], [0.5, 0.5], 0, 6, batch_tokens=80)
    assert [len(sampler[step]) for step in range(6)] == [40] * 6


def test_a_sampler_draws_the_rows_of_recorded_runs():
    """The runs in `experiments/runs` stay reproducible only if the same seed, rows and steps draw the same rows."""
    shares = compute_task_shares({"a": 400, "b": 40, "c": 7}, {"a": 1.0, "b": 2.0, "c": 1.0}, 10)
    assert raise_shares(shares, dict.fromkeys(shares, 0.0)) == shares
    assert shares == {"a": 0.30713192351983565, "b": 0.4879271172739682, "c": 0.20494095920619618}
    sampler = TaskSampler([np.full(count, 9) for count in ROWS], list(shares.values()), 3, 50, 6)
    assert sampler[0] == [(0, 395), (0, 2), (1, 28), (2, 4), (0, 350), (2, 5)]
    assert sampler[49] == [(0, 99), (0, 151), (1, 39), (1, 27), (1, 38), (0, 13)]
    lengths = [np.arange(count) % 5 + 3 for count in ROWS]
    sampler = TaskSampler(lengths, list(shares.values()), 3, 50, batch_tokens=30)
    assert sampler[49] == [(0, 130), (1, 31), (2, 6), (0, 128), (2, 3), (0, 189)]


@pytest.mark.parametrize(
    ("shares", "minimums", "expected"),
    [
        ([0.7, 0.2, 0.1], [0.1, 0.1, 0.1], [0.7, 0.2, 0.1]),
        ([0.7, 0.2, 0.1], [0.0, 0.0, 0.28], [0.56, 0.16, 0.28]),
        (
            [0.7, 0.2, 0.1],
            [0.0, 0.17, 0.28],
            [0.55, 0.17, 0.28],
        ),  # 0.2 falls below its minimum only in the second round
        ([0.9, 0.1], [0.5, 0.5], [0.5, 0.5]),
        ([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]),
    ],
)
def test_small_tasks_are_raised_to_their_minimum_and_the_others_reduced_in_proportion(shares, minimums, expected):
    raised = raise_shares(*(dict(zip("abc", values, strict=False)) for values in (shares, minimums)))
    assert list(raised.values()) == pytest.approx(expected)
    assert sum(raised.values()) == pytest.approx(1)


def test_passes_are_counted_in_the_steps_that_were_run():
    sampler = make_sampler()
    for steps in (0, 7, 60):
        draws = Counter(task for step in range(steps) for task, _ in sampler[step])
        assert sampler.count_passes(steps) == [draws[task] / count for task, count in enumerate(ROWS)]
