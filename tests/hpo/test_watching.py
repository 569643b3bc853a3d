"""Which trials hang: those silent for far longer than any has needed, and no others."""

from __future__ import annotations

import pytest

from hpo.watching import Watch


class Trials:
    """A watch over trials, and its time."""

    def __init__(self, times: float | None = 10.0) -> None:
        self.now = 0.0
        self.watch = Watch(times, lambda: self.now)

    def sleep(self, seconds: float) -> None:
        """Time in which this process ran."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 50.0)
            self.watch.look()

    def overdue(self) -> list[int]:
        return [number for number, _ in self.watch.overdue()]

    def paced(self, seconds: float, tokens: int) -> None:
        """A trial that ran so fast."""
        self.watch.started(99, 0)
        self.watch.begun(99, [tokens], tokens)
        self.sleep(seconds)
        self.watch.measured(99, tokens)
        self.watch.ended(99)


@pytest.fixture
def trials() -> Trials:
    return Trials()


def test_silence_ten_times_as_long_as_any_is_a_hang(trials: Trials) -> None:
    trials.paced(100.0, 10)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [10, 20], 20)
    trials.sleep(990.0)
    assert trials.overdue() == []
    trials.sleep(20.0)
    assert trials.overdue() == [0]


def test_a_measurement_is_a_sign_of_life(trials: Trials) -> None:
    trials.paced(100.0, 10)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [10, 20], 20)
    trials.sleep(900.0)
    trials.watch.measured(0, 10)
    trials.sleep(900.0)
    assert trials.overdue() == []


def test_five_minutes_are_never_a_hang(trials: Trials) -> None:
    trials.paced(0.1, 10)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [10], 10)
    trials.sleep(299.0)
    assert trials.overdue() == []
    trials.sleep(2.0)
    assert trials.overdue() == [0]


def test_the_way_from_the_last_rung_to_the_end_counts_too(trials: Trials) -> None:
    trials.paced(100.0, 100)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [10, 20], 1000)
    trials.sleep(5000.0)  # a thousand tokens at a second each, and ten times that is allowed
    assert trials.overdue() == []


def test_a_trial_taken_for_hung_gets_more_patience(trials: Trials) -> None:
    trials.paced(100.0, 10)
    trials.watch.started(0, 1)
    trials.watch.begun(0, [10], 10)
    trials.sleep(3900.0)
    assert trials.overdue() == []
    trials.sleep(200.0)
    assert trials.overdue() == [0]


def test_without_tokens_the_time_between_measurements_counts(trials: Trials) -> None:
    trials.paced(100.0, 10)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [], None)
    trials.sleep(1010.0)
    assert trials.overdue() == [0]


def test_before_any_measurement_nothing_is_expected(trials: Trials) -> None:
    trials.watch.started(0, 0)
    trials.sleep(1e5)
    assert trials.overdue() == []


def test_never_is_never() -> None:
    trials = Trials(None)
    trials.paced(1.0, 10)
    trials.watch.started(0, 0)
    trials.sleep(1e5)
    assert trials.overdue() == []


def test_a_pause_of_the_machine_neither_hangs_a_trial_nor_teaches_patience(trials: Trials) -> None:
    trials.paced(100.0, 10)
    trials.watch.started(0, 0)
    trials.watch.begun(0, [10, 20], 20)
    trials.sleep(50.0)
    trials.now += 30_000.0  # asleep
    assert trials.overdue() == []
    trials.now += 30_000.0
    trials.watch.measured(0, 10)
    trials.sleep(1010.0)
    assert trials.overdue() == [0]
