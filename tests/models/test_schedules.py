"""Where the steps lie and the learning rate there; the order of the data."""

from typing import Any

import numpy as np
import pytest
import torch

from models.batches import Sequences, windows
from models.configuration import Training
from models.errors import DataError
from models.schedules import batches, learning_rate, middle, segments, stable_steps, warmup_end


@pytest.mark.parametrize("batch_size", [1, 3, 8, 13, 64, 1000])
def test_every_rung_is_measured_whatever_the_batch_size(batch_size: int) -> None:
    found = segments(rungs=[1000, 333, 2000], tokens=4096, example_tokens=16, batch_size=batch_size)
    assert [segment.progress for segment in found] == [333, 1000, 2000, 4096]
    assert [segment.first + segment.examples for segment in found] == [21, 62, 125, 256]


def test_steps_cover_a_segment_without_gap_in_sizes_that_differ_by_one_at_most() -> None:
    (segment,) = segments(rungs=[], tokens=1000, example_tokens=10, batch_size=8)
    batches = list(segment.batches())
    assert [first for first, _ in batches] == [0, *np.cumsum([count for _, count in batches])[:-1]]
    assert sum(count for _, count in batches) == 100
    assert len(batches) == 12
    assert {count for _, count in batches} == {8, 9}


def test_rungs_beyond_the_end_are_left_out() -> None:
    found = segments(rungs=[50, 100, 500], tokens=100, example_tokens=10, batch_size=2)
    assert [segment.progress for segment in found] == [50, 100]


def test_rungs_on_one_example_share_its_measurement() -> None:
    found = segments(rungs=[100, 101], tokens=200, example_tokens=10, batch_size=2)
    assert [(segment.progress, segment.steps) for segment in found] == [(100, 5), (101, 0), (200, 5)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_a_schedule_rises_to_its_peak_and_ends_at_its_share(schedule: Any) -> None:
    settings = Training(schedule=schedule, learning_rate=2.0, warmup=0.1, decay=0.3, final_learning_rate=0.25)
    assert learning_rate(settings, 0.05, examples=1) == pytest.approx(1.0)
    assert learning_rate(settings, 0.1, examples=1) == pytest.approx(2.0)
    assert learning_rate(settings, 1.0, examples=1) == pytest.approx(2.0 if schedule == "constant" else 0.5)


def test_wsd_is_stable_until_its_decay() -> None:
    settings = Training(schedule="wsd", learning_rate=1.0, warmup=0.1, decay=0.2, final_learning_rate=0.0)
    assert [learning_rate(settings, p, examples=1) for p in (0.2, 0.5, 0.8)] == pytest.approx([1.0, 1.0, 1.0])
    assert learning_rate(settings, 0.9, examples=1) == pytest.approx(0.5)


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(Training(warmup=0.0, learning_rate=3.0), 0.0, examples=1) == 3.0


def test_a_warm_up_in_examples_is_the_same_in_runs_of_any_length() -> None:
    for schedule in ("cosine", "linear", "constant", "wsd"):
        settings = Training(schedule=schedule, learning_rate=1.0, warmup_examples=30, decay=0.2)
        rates = [[learning_rate(settings, at, examples=examples) for at in (7, 15, 30)] for examples in (90, 700)]
        assert rates[0][:2] == rates[1][:2] == [7 / 30, 0.5]
        assert rates[0][2] == pytest.approx(1.0)


def test_no_examples_of_warm_up_start_at_the_peak() -> None:
    assert learning_rate(Training(warmup_examples=0, learning_rate=3.0), 0.0, examples=10) == 3.0


def test_a_run_too_short_to_rise_and_fall_takes_the_lower_of_both() -> None:
    settings = Training(schedule="wsd", learning_rate=1.0, warmup_examples=100, decay=0.5, final_learning_rate=0.0)
    found = [learning_rate(settings, at, examples=100) for at in (20, 50, 60, 80, 100)]
    assert found == pytest.approx([0.2, 0.5, 0.6, 0.4, 0.0])


def test_a_branch_falls_to_its_own_end_and_the_run_stays() -> None:
    settings = Training(schedule="wsd", learning_rate=1.0, warmup=0.1, decay=0.2, final_learning_rate=0.0)
    branch = [learning_rate(settings, at, examples=1000, horizon=200) for at in (50, 160, 180, 200)]
    assert branch == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert learning_rate(settings, 200, examples=1000) == 1.0


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
@pytest.mark.parametrize(("decay", "warmup_examples"), [(0.2, 30), (0.5, 30), (1.0, 0), (0.2, 300)])
def test_runs_that_end_at_a_rung_and_beyond_it_are_one_up_to_the_branch(
    batch_size: int, decay: float, warmup_examples: int
) -> None:
    settings = Training(schedule="wsd", decay=decay, warmup_examples=warmup_examples)
    run = segments(rungs=[100, 250], tokens=900, example_tokens=1, batch_size=batch_size)
    stable = stable_steps(settings, run[:2], examples=900)
    rates = [
        [learning_rate(settings, first + count / 2, examples=900, horizon=end) for end in (250, 900)]
        for first, count in batches(run, 0, run[0].steps + run[1].steps)
    ]
    assert all(short == long for short, long in rates[:stable])
    assert all(short < long for short, long in rates[stable:])


WARM_UPS: list[dict[str, Any]] = [
    {"warmup": 0.0}, {"warmup": 0.2}, {"warmup": 1 / 3}, {"warmup": 0.01}, {"warmup": 1.0}, {"warmup_examples": 0},
    {"warmup_examples": 1}, {"warmup_examples": 100}, {"warmup_examples": 101}, {"warmup_examples": 5000},
]  # fmt: skip


@pytest.mark.parametrize("warm_up", WARM_UPS)
@pytest.mark.parametrize("example_tokens", [1, 16, 7.3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 60])
def test_the_warm_up_lasts_until_a_measurement_has_a_step_at_the_peak_behind_it(
    warm_up: dict[str, Any], example_tokens: float, batch_size: int
) -> None:
    examples = 480
    settings = Training(schedule="constant", learning_rate=1.0, batch_size=batch_size, **warm_up)
    tokens = round(examples * example_tokens)
    end = warmup_end(settings, tokens=tokens, example_tokens=example_tokens)
    for seen in range(batch_size, examples, batch_size):
        rung = round(seen * example_tokens)
        run = segments(rungs=[rung], tokens=tokens, example_tokens=example_tokens, batch_size=batch_size)
        rates = [
            learning_rate(settings, middle(first, count), examples=examples)
            for first, count in batches(run, 0, run[0].steps)
        ]
        assert {count for _, count in run[0].batches()} == {batch_size}
        assert (max(rates) == 1.0) == (rung > end), (seen, end)


@pytest.mark.parametrize("warmup", [0.1, 0.2, 0.25])
def test_a_rung_where_the_warm_up_ends_lies_in_it(warmup: float) -> None:
    for tokens in range(1000, 1100):
        for batch_size in (2, 7, 16):
            settings = Training(batch_size=batch_size, warmup=warmup)
            assert warmup_end(settings, tokens=tokens, example_tokens=1) >= int(warmup * tokens)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_a_warm_up_ends_alike_whatever_follows_it(schedule: Any) -> None:
    settings = Training(schedule=schedule, batch_size=10, warmup=0.3, decay=0.2)
    assert warmup_end(settings, tokens=1000, example_tokens=1) == 304  # a step to 305 has its middle at 300


def test_the_warm_up_of_a_run_too_short_to_rise_in_full_lasts_until_it_falls() -> None:
    settings = Training(
        schedule="wsd", learning_rate=1.0, warmup_examples=100, decay=0.5, final_learning_rate=0.0, batch_size=2
    )
    end = warmup_end(settings, tokens=100, example_tokens=1)
    rates = [learning_rate(settings, middle(first, 2), examples=100) for first in range(0, 100, 2)]
    assert rates.index(max(rates)) == end // 2
    assert end == 67  # x / 100 = (1 - x / 100) / 0.5 at 66.7


def test_steps_of_a_run_are_numbered_across_its_rungs() -> None:
    run = segments(rungs=[100, 101, 250], tokens=900, example_tokens=10, batch_size=4)
    every = [batch for segment in run for batch in segment.batches()]
    assert list(batches(run, 0, len(every))) == every
    assert list(batches(run, 2, 9)) == every[2:9]
    assert list(batches(run, 5, 5)) == []


def tokens(count: int) -> Any:
    return np.arange(count, dtype=np.uint16)


def test_the_order_is_the_same_in_batches_of_any_size() -> None:
    whole = Sequences(tokens(1000), context=8, seed=3).draw(0, 300)
    other = Sequences(tokens(1000), context=8, seed=3)
    parts = [other.draw(first, 7) for first in range(0, 294, 7)]
    assert torch.equal(torch.cat(parts), whole[:294])


def test_the_order_can_be_entered_anywhere() -> None:
    whole = Sequences(tokens(1000), context=8, seed=3).draw(0, 300)
    assert torch.equal(Sequences(tokens(1000), context=8, seed=3).draw(250, 50), whole[250:])


def test_an_epoch_sees_no_token_twice_as_a_target() -> None:
    sequences = Sequences(tokens(1000), context=8, seed=3)
    targets = sequences.draw(0, sequences.epoch_sequences)[:, 1:].flatten()
    assert len(targets.unique()) == len(targets) >= 1000 - 2 * 8


def test_epochs_and_seeds_differ_in_their_order() -> None:
    sequences = Sequences(tokens(1000), context=8, seed=3)
    count = sequences.epoch_sequences
    first, second = sequences.draw(0, count), sequences.draw(count, count)
    assert not torch.equal(first, second)
    assert not torch.equal(first, Sequences(tokens(1000), context=8, seed=4).draw(0, count))


def test_a_split_shorter_than_two_contexts_is_refused() -> None:
    with pytest.raises(DataError, match="got context 100 and 150 tokens"):
        Sequences(tokens(150), context=100, seed=0)


@pytest.mark.parametrize("count", [2, 8, 9, 10, 17, 100])
def test_windows_predict_every_token_but_the_first_once(count: int) -> None:
    found = list(windows(tokens(count), context=8, batch_tokens=24))
    targets = [target for batch in found for row in batch[:, 1:].tolist() for target in row]
    inputs = [token for batch in found for row in batch[:, :-1].tolist() for token in row]
    assert targets == list(range(1, count))
    assert inputs == list(range(count - 1))
