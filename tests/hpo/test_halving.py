"""Halving that takes back: what waits, what goes on, and that the best is never lost."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest

from hpo.errors import UserError
from hpo.halving import BestOfRung, Ladder, Look, PausingHalving, Rule, SuccessiveHalving
from hpo.journal import History
from hpo.replay.simulation import Replay, replay
from hpo.replay.tables import Point, Row, Table
from hpo.space import Choices, Parameter, Space
from hpo.stopping import make_rule
from hpo.study import Study
from hpo.sweep import Search, Strategy
from hpo.trials import Direction, Metric, Outcome, Paused, rung_tokens

THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))


def look(number: int, progress: int, value: float, length: int | None = 27) -> Look:
    return Look(number, progress, value, length)


def pauses(rule: Rule, number: int, progress: int, value: float, length: int | None = 27) -> bool:
    verdict = rule.judge(look(number, progress, value, length), lambda: False)
    if isinstance(verdict, Paused):
        rule.set_aside(number)
    return verdict is not None


def noise_free(values: Sequence[float], length: int = 27) -> Table:
    """Trials that keep their order from the first measurement on."""
    rows = tuple(
        Row({"which": number}, tuple(Point(at, value + 5 / at, float(at)) for at in range(1, length + 1)))
        for number, value in enumerate(values)
    )
    space = Space((Parameter("which", Choices(tuple(range(len(values))))),))
    return Table("noise-free", space, Metric("loss", Direction.MINIMIZE), rows, length)


def searched(table: Table, pruner: Strategy, slots: int, rungs: tuple[Fraction, ...] = THIRDS) -> Replay:
    search = Search(trials=len(table.rows), sampler=Strategy("grid"), pruner=pruner, rungs=rungs)
    study = Study(table.asked_by(search), None, History(), 1)
    return replay(table, study, count=len(table.rows), slots=slots)


def test_a_trial_below_the_cut_waits_and_goes_on_once_it_is_above_it() -> None:
    rule = PausingHalving(Direction.MINIMIZE, THIRDS)
    assert pauses(rule, 0, 3, 1.0)
    assert pauses(rule, 1, 3, 2.0)
    assert rule.revive(last=False) is None
    assert pauses(rule, 2, 3, 3.0)
    assert rule.revive(last=False) == 0  # the best of three
    assert rule.revive(last=False) is None
    assert not pauses(rule, 3, 3, 0.5)  # the best of four: above the cut as it arrives
    assert pauses(rule, 4, 3, 9.0)
    assert pauses(rule, 5, 3, 8.0)
    assert rule.revive(last=False) is None  # two of six have gone on


def test_the_highest_rung_goes_first() -> None:
    rule = PausingHalving(Direction.MINIMIZE, THIRDS)
    for number in range(9):
        pauses(rule, number, 3, float(number))
    gone_on = [rule.revive(last=False) for _ in range(4)]
    assert gone_on == [0, 1, 2, None]
    assert all(pauses(rule, number, 9, float(number)) for number in (0, 1, 2))
    for number in range(9, 12):
        pauses(rule, number, 3, 10.0)
    assert [rule.revive(last=False) for _ in range(3)] == [0, 3, None]  # of three at 9 one; of twelve at 3 four


def test_of_equals_the_first_goes_on() -> None:
    rule = PausingHalving(Direction.MINIMIZE, THIRDS)
    assert [pauses(rule, number, 3, 1.0) for number in range(9)] == [True] * 9
    assert [rule.revive(last=False) for _ in range(4)] == [0, 1, 2, None]


@pytest.mark.parametrize("pruner", ["pausing halving", "best of rung"])
@pytest.mark.parametrize("slots", [1, 4, 16])
def test_the_best_of_64_is_found_as_often_as_by_running_all(pruner: str, slots: int) -> None:
    for seed in range(12):
        draw = random.Random(seed)
        table = noise_free([draw.random() for _ in range(64)])
        found = searched(table, Strategy(pruner), slots)
        assert found.best(Direction.MINIMIZE.better) == table.best
        assert found.spent < 0.45 * 64 * table.full_cost
        assert sum(found.endings.values()) == 64


def test_the_order_of_arrival_decides_nothing_about_who_leads_or_what_waits_for_all() -> None:
    draw = random.Random(7)
    values = [draw.random() for _ in range(40)]
    for rule in (Strategy("best of rung", {"keep": 5}), Strategy("pausing halving")):
        winners, completed = set(), set()
        for seed in range(8):
            table = noise_free(random.Random(seed).sample(values, 40))
            found = searched(table, rule, 3)
            winners.add(found.best(Direction.MINIMIZE.better))
            completed.add(tuple(sorted(step.value for step in found.steps)))
        assert len(winners) == 1
        if rule.name == "best of rung":
            assert len(completed) == 1
            assert len(next(iter(completed))) == 5


def test_no_rung_compares_trials_of_different_lengths() -> None:
    for rule in (SuccessiveHalving(Direction.MINIMIZE, THIRDS), PausingHalving(Direction.MINIMIZE, THIRDS)):
        for number in range(6):
            rule.judge(look(number, 9, 1.0, length=81), lambda: False)
        verdict = rule.judge(look(6, 9, 5.0, length=27), lambda: False)
        assert not isinstance(verdict, Outcome)
        if isinstance(verdict, Paused):
            assert "place 1 of 1" in verdict.reason


def test_a_measurement_between_rungs_is_compared_with_nothing() -> None:
    rule = PausingHalving(Direction.MINIMIZE, THIRDS)
    assert not pauses(rule, 0, 2, 1.0)
    assert pauses(rule, 0, 3, 1.0)
    assert not pauses(rule, 0, 5, 1.0)


def test_without_rungs_every_third_power_is_one() -> None:
    rule = SuccessiveHalving(Direction.MINIMIZE)
    stopped_at = {}
    for number in range(12):
        for epoch in range(1, 28):
            if rule.judge(look(number, epoch, float(number), None), lambda: False) is not None:
                stopped_at[number] = epoch
                break
    assert set(stopped_at.values()) <= {1, 3, 9, 27}
    assert len(stopped_at) == 11


def test_the_least_is_the_last_of_the_lowest_rung() -> None:
    rule = PausingHalving(Direction.MINIMIZE, THIRDS)
    for number, value in enumerate((3.0, 5.0, 4.0)):
        pauses(rule, number, 3, value)
    assert rule.least() == 1
    rule.ended(1)
    assert rule.least() == 2


def test_what_was_recorded_is_recalled_in_whatever_order() -> None:
    def told(order: list[int]) -> list[int | None]:
        rule = PausingHalving(Direction.MINIMIZE, THIRDS)
        for number in order:
            rule.recall(look(number, 3, float(number)))
            rule.set_aside(number)
        return [rule.revive(last=True) for _ in range(4)]

    assert told([0, 1, 2, 3, 4, 5, 6]) == told([6, 3, 1, 0, 5, 2, 4]) == [0, 1, 2, None]


def test_one_rung_then_the_best() -> None:
    rule = BestOfRung(Direction.MAXIMIZE, THIRDS, keep=2)
    for number, value in enumerate((3.0, 5.0, 4.0)):
        assert pauses(rule, number, 3, value)
    assert rule.revive(last=False) is None
    assert [rule.revive(last=True) for _ in range(3)] == [1, 2, None]
    assert not pauses(rule, 1, 9, 0.0)


@pytest.mark.parametrize(("length", "rungs"), [(243, [27, 81, 243]), (729, [81, 243, 729]), (1000, [111, 333, 1000])])
def test_rungs_are_exact_whole_numbers(length: int, rungs: list[int]) -> None:
    assert rung_tokens(THIRDS, length) == rungs


class TestNoise:
    """A rule that is told how much the metric varies between trainings of one configuration."""

    def test_whoever_may_be_below_the_cut_by_noise_alone_goes_on(self) -> None:
        values = [1.0, 2.0, 3.0, 1.19, 1.21, 5.0]
        for noise, expected in ((0.0, [0, 3]), (0.1, [0, 3, 4])):
            rule = PausingHalving(Direction.MINIMIZE, THIRDS, noise=noise)
            gone_on = [number for number, value in enumerate(values) if not pauses(rule, number, 3, value)]
            while (number := rule.revive(last=False)) is not None:
                gone_on.append(number)
            # Two of six are above the cut, 1.0 and 1.19; 1.21 is within 0.2 of the second.
            assert sorted(gone_on) == expected

    def test_a_trial_is_not_stopped_within_the_noise(self) -> None:
        for noise, stopped in ((0.0, True), (0.1, False)):
            rule = SuccessiveHalving(Direction.MAXIMIZE, THIRDS, noise=noise)
            assert not pauses(rule, 0, 3, 1.0)
            assert pauses(rule, 1, 3, 0.85) is stopped
            assert pauses(rule, 2, 3, 0.7)

    @pytest.mark.parametrize("seed", range(20))
    def test_all_within_two_deviations_of_the_cut_have_gone_on_in_the_end(self, seed: int) -> None:
        draw = random.Random(seed)
        noise = draw.choice([0.0, 0.02, 0.1])
        values = [draw.random() for _ in range(draw.randint(3, 40))]
        rule = PausingHalving(Direction.MINIMIZE, (Fraction(1, 9), Fraction(1)), noise=noise)
        gone_on = {number for number, value in enumerate(values) if not pauses(rule, number, 3, value)}
        while (number := rule.revive(last=True)) is not None:
            gone_on.add(number)
        cut = sorted(values)[-(-len(values) // 3) - 1]
        assert {number for number, value in enumerate(values) if value <= cut + 2 * noise} <= gone_on
        assert len(gone_on) < len(values) or noise

    def test_of_noisy_trainings_the_best_is_trained_to_its_end_more_often(self) -> None:
        kept = {0.0: 0, 0.05: 0}
        for seed in range(40):
            draw = random.Random(seed)
            rows = tuple(
                Row({"which": number}, (Point(3, value + draw.gauss(0, 0.05), 3.0), Point(27, value, 27.0)))
                for number, value in enumerate(draw.random() / 3 for _ in range(27))
            )
            space = Space((Parameter("which", Choices(tuple(range(27)))),))
            table = Table("noisy", space, Metric("loss", Direction.MINIMIZE), rows, 27)
            for noise in kept:
                found = searched(table, Strategy("pausing halving", {"noise": noise}), 1, (Fraction(1, 9), Fraction(1)))
                kept[noise] += found.best(Direction.MINIMIZE.better) == table.best
                assert found.spent < 27 * table.full_cost
        assert kept[0.05] > kept[0.0]
        assert kept[0.05] >= 38

    @pytest.mark.parametrize("noise", [-0.1, float("inf"), float("nan"), True, "0.1"])
    def test_a_deviation_is_a_number_from_0(self, noise: object) -> None:
        with pytest.raises(UserError, match="noise requires a standard deviation"):
            make_rule(Strategy("pausing halving", {"noise": noise}), Direction.MINIMIZE, 1, THIRDS)

    def test_a_trade_off_has_no_one_noise(self) -> None:
        with pytest.raises(UserError, match="a trade-off has several"):
            make_rule(Strategy("pausing halving", {"noise": 0.1}), Direction.MINIMIZE, 1, THIRDS, weighs=True)


class TestMeasuredNoise:
    """A rule that is not told the noise, and takes it from repeats of one configuration."""

    @staticmethod
    def repeats(rule: Rule, values: Sequence[float], progress: int = 3) -> None:
        """Trainings of the baseline: trial 0, and repeats from 100 on."""
        rule.judge(look(0, progress, values[0]), lambda: False)
        for count, value in enumerate(values[1:]):
            assert rule.judge(repeat(100 + count, progress, value), lambda: False) is None

    @pytest.mark.parametrize("direction", list(Direction))
    def test_it_is_the_deviation_of_all_trainings_on_the_rung(self, direction: Direction) -> None:
        ladder = Ladder(direction, 3, THIRDS)
        assert ladder.noise((27, 3)) == 0.0
        ladder.place(look(0, 3, 1.0))
        assert ladder.noise((27, 3)) == 0.0
        assert ladder.place(repeat(1, 3, 1.3)) is None
        assert ladder.noise((27, 3)) == pytest.approx(statistics.stdev([1.0, 1.3]))
        ladder.place(repeat(2, 3, 0.8))
        assert ladder.noise((27, 3)) == pytest.approx(statistics.stdev([1.0, 1.3, 0.8]))
        ladder.place(look(3, 3, 7.0))
        assert ladder.noise((27, 3)) == pytest.approx(statistics.stdev([1.0, 1.3, 0.8]))
        assert ladder.noise((27, 9)) == 0.0
        for number, value in enumerate((0.5, 0.7)):
            ladder.place(repeat(1 + number, 9, value))
        assert ladder.noise((27, 9)) == pytest.approx(statistics.stdev([0.5, 0.7]))  # the first has not come so far
        assert ladder.noise((81, 3)) == 0.0

    def test_a_repeat_takes_no_place_on_a_rung(self) -> None:
        for make in (SuccessiveHalving, PausingHalving):
            rule = make(Direction.MINIMIZE, THIRDS, noise=0.0)
            for number in range(5):
                assert rule.judge(repeat(10 + number, 3, 9.0), lambda: False) is None
            for number, value in enumerate((1.0, 2.0)):
                verdict = rule.judge(look(number, 3, value), lambda: False)
            assert verdict is not None
            assert "place 2 of 2 at 3; " in verdict.reason

    def test_rungs_that_are_not_given_are_found_for_repeats_too(self) -> None:
        ladder = Ladder(Direction.MINIMIZE, 3)
        for number in range(3):
            for epoch in range(1, 10):
                ladder.place(Look(number, epoch, number / epoch, None, (), 0 if number else None))
        assert [ladder.noise((0, epoch)) > 0 for epoch in range(1, 10)] == [
            epoch in (1, 3, 9) for epoch in range(1, 10)
        ]

    @pytest.mark.parametrize("option", [0.0, 0.3])
    def test_a_noise_that_was_given_goes_before(self, option: float) -> None:
        for given, spared in ((None, 0.199), (option, 2 * option - 0.001)):
            rule = SuccessiveHalving(Direction.MINIMIZE, THIRDS, noise=given)
            self.repeats(rule, [1.0, 1.1, 0.9])  # a deviation of 0.1
            assert pauses(rule, 1, 3, 1.0 + spared + 0.002)
            assert given == 0.0 or not pauses(rule, 2, 3, 1.0 + spared)

    @pytest.mark.parametrize("seed", range(25))
    def test_nothing_within_two_deviations_of_the_cut_is_stopped(self, seed: int) -> None:
        draw = random.Random(seed)
        rule = SuccessiveHalving(Direction.MINIMIZE, THIRDS)
        first = [draw.gauss(0.5, 0.05) for _ in range(draw.randint(2, 5))]
        self.repeats(rule, first)
        values, noise = [first[0]], statistics.stdev(first)
        stopped = 0
        for number in range(1, 40):
            value = draw.random()
            values.append(value)
            cut = sorted(values)[max(1, len(values) // 3) - 1]
            assert pauses(rule, number, 3, value) == (value > cut + 2 * noise)
            stopped += value > cut + 2 * noise
        assert stopped

    @pytest.mark.parametrize("seed", range(25))
    def test_all_within_two_measured_deviations_have_gone_on_in_the_end(self, seed: int) -> None:
        draw = random.Random(seed)
        first = [draw.gauss(0.5, 0.05) for _ in range(draw.randint(2, 5))]
        values = {0: first[0], **{number: draw.random() for number in range(1, draw.randint(3, 40))}}
        looks = [look(number, 3, value) for number, value in values.items()]
        looks += [repeat(100 + count, 3, value) for count, value in enumerate(first[1:])]
        draw.shuffle(looks)  # repeats may come late: what waits by then is taken up again
        rule = PausingHalving(Direction.MINIMIZE, (Fraction(1, 9), Fraction(1)))
        gone_on = {one.number for one in looks if not pauses_at(rule, one)}
        while (number := rule.revive(last=True)) is not None:
            gone_on.add(number)
        cut = sorted(values.values())[-(-len(values) // 3) - 1]
        within = {number for number, value in values.items() if value <= cut + 2 * statistics.stdev(first)}
        assert within <= gone_on
        assert len(gone_on & values.keys()) < len(values) or len(within) == len(values)

    def test_what_was_recorded_is_recalled_in_whatever_order(self) -> None:
        looks = [look(0, 3, 1.0), repeat(1, 3, 1.1), repeat(2, 3, 0.9), look(3, 3, 0.5), look(4, 3, 5.0)]
        for order in itertools.permutations(looks):
            rule = SuccessiveHalving(Direction.MINIMIZE, THIRDS)
            for one in order:
                rule.recall(one)
            assert not pauses(rule, 5, 3, 0.69)
            assert pauses(rule, 6, 3, 0.71)

    def test_a_front_is_not_widened_by_the_noise_of_one_metric(self) -> None:
        rule, _ = make_rule(Strategy("pausing halving"), Direction.MINIMIZE, 1, THIRDS, weighs=True)
        rule.judge(Look(0, 3, 1.0, 27, (1.0, 1.0)), lambda: False)
        for number, value in ((1, 9.0), (2, 5.0)):
            assert rule.judge(Look(number, 3, value, 27, (value, value), 0), lambda: False) is None
        verdicts = [rule.judge(Look(n, 3, 1.0 + n, 27, (1.0 + n, 1.0 + n)), lambda: False) for n in range(3, 9)]
        assert all(isinstance(verdict, Paused) for verdict in verdicts)


def pauses_at(rule: Rule, one: Look) -> bool:
    """Whether a trial that measured is set aside; as a repeat of the baseline never is."""
    if rule.judge(one, lambda: False) is None:
        return False
    rule.set_aside(one.number)
    return True


def repeat(number: int, progress: int, value: float) -> Look:
    return Look(number, progress, value, 27, (), 0)


@pytest.mark.parametrize("direction", list(Direction))
def test_places_are_those_of_counting(direction: Direction) -> None:
    draw = random.Random(3)
    ladder, values = Ladder(direction, 3, THIRDS), dict[int, float]()
    for _ in range(300):
        number, value = draw.randrange(60), draw.choice([0.1, 0.2, 0.3, draw.random()])
        values[number] = value  # once more, perhaps: a trial that was resumed measures again
        assert ladder.place(look(number, 3, value)) == (27, 3)
        better = sum(direction.better(other, value) for other in values.values())
        assert ladder.better(number, (27, 3)) == better
        equals = sum(other < number for other, same in values.items() if same == value)
        assert ladder.before(number, (27, 3)) == better + equals
    sign = 1 if direction is Direction.MINIMIZE else -1
    assert list(ladder.order((27, 3))) == sorted(values, key=lambda number: (sign * values[number], number))
