"""Waiting trials compared by where they are expected to end: what is learned of gains, and what it is used for."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest

from hpo.errors import UserError
from hpo.halving import Look, PausingHalving
from hpo.journal import History, encode
from hpo.projection import Gains, ProjectedHalving
from hpo.replay.contest import Entrant, Terms, compete
from hpo.replay.synthetic import late, synthetic
from hpo.replay.tables import Point, Table
from hpo.stopping import make_rule
from hpo.study import Study
from hpo.sweep import Search, Strategy
from hpo.trials import (
    Assignment,
    Direction,
    Ended,
    Ending,
    Event,
    Interrupted,
    Measurement,
    Outcome,
    Paused,
    Progressed,
    Started,
)

THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))


def told(pairs: Sequence[tuple[Sequence[float], float]]) -> np.ndarray:
    gains = Gains(len(pairs[0][0]))
    for number, (features, gain) in enumerate(pairs):
        gains.add(number, tuple(features), gain)
    return gains.weights_F


def drawn(count: int, weights: Sequence[float], noise: float, seed: int) -> list[tuple[list[float], float]]:
    draw = random.Random(seed)
    pairs = []
    for _ in range(count):
        features = [draw.random() for _ in weights]
        pairs.append((features, -1.0 + float(np.dot(weights, features)) + draw.gauss(0, noise)))
    return pairs


# -- what is learned of gains ---------------------------------------------------------------------------


def in_the_space_of_trials(pairs: Sequence[tuple[Sequence[float], float]], at: np.ndarray) -> np.ndarray:
    """The same model written with kernels: what each of some places gains more than the mean of those that went on."""
    features, gains = (np.array(column) for column in zip(*pairs, strict=True))
    deviation = 1.4826 * np.median(np.abs(gains - np.median(gains)))
    gains = np.clip(gains, np.median(gains) - 3 * deviation, np.median(gains) + 3 * deviation)
    count, apart = len(gains), gains - gains.mean()
    centred = features - features.mean(axis=0)
    floor = 0.02 * float(apart @ apart) / count
    evidence, found = [], []
    for ratio, prior in [(0.0, 0.5), *((ratio, 0.1) for ratio in (1.0, 3.0, 10.0, 30.0, 100.0))]:
        kernel = ratio * centred @ centred.T + np.eye(count)
        solved = np.linalg.solve(kernel, apart)
        determinant = np.linalg.slogdet(kernel)[1]
        evidence.append(math.log(prior) - determinant / 2 - (count + 1) / 2 * math.log(float(apart @ solved) + floor))
        found.append(ratio * (at - features.mean(axis=0)) @ centred.T @ solved)
    shares = np.exp(np.array(evidence) - max(evidence))
    mixed: np.ndarray = (shares / shares.sum()) @ np.array(found)
    return mixed


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_those_of_the_model_written_with_kernels(seed: int) -> None:
    pairs = drawn(4 + 3 * seed, [0.5, 0.0, -0.3], 0.1, seed)
    at = np.random.default_rng(seed).random((7, 3))
    expected = in_the_space_of_trials(pairs, at)
    mean = np.mean([features for features, _ in pairs], axis=0)
    assert (at - mean) @ told(pairs) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_what_gains_depend_on_is_found() -> None:
    for seed in range(5):
        weights = told(drawn(20, [0.5, 0.0, -0.3], 0.01, seed))
        assert weights == pytest.approx([0.5, 0.0, -0.3], abs=0.06)


def test_gains_that_depend_on_nothing_tell_next_to_nothing() -> None:
    sizes = [float(np.abs(told(drawn(20, [0.0, 0.0, 0.0], 0.1, seed))).max()) for seed in range(20)]
    assert statistics.median(sizes) < 0.02
    assert max(sizes) < 0.15  # of 20 draws one looks as if; the noise between two trials is 0.14


@pytest.mark.parametrize(
    "pairs", [drawn(3, [1.0], 0.0, 0), [([n / 9], -0.5) for n in range(10)], [([0.5], n) for n in range(5)]]
)
def test_few_gains_or_equal_ones_or_of_one_configuration_tell_nothing(pairs: list[tuple[list[float], float]]) -> None:
    assert not told(pairs).any()


@pytest.mark.parametrize("blown_up", [11.0, 1000.0, 1e160])
@pytest.mark.parametrize("count", [6, 15])
def test_a_training_that_blew_up_does_not_change_what_is_learned_much(count: int, blown_up: float) -> None:
    pairs = drawn(count, [0.0, 0.0, 0.0], 0.01, 1)
    pairs[2] = (pairs[2][0], blown_up)
    assert np.abs(told(pairs)).max() < 0.05
    pairs = drawn(count + 10, [0.5, 0.0, -0.3], 0.01, 1)
    pairs[2] = (pairs[2][0], blown_up)
    assert told(pairs) == pytest.approx([0.5, 0.0, -0.3], abs=0.35)


# -- what it is used for --------------------------------------------------------------------------------


def look(number: int, progress: int, value: float, *features: float) -> Look:
    return Look(number, progress, value, 27, features=features)


def pauses(rule: PausingHalving, *looked: float) -> str:
    number, progress, value, *features = looked
    verdict = rule.judge(look(int(number), int(progress), value, *features), lambda: False)
    if isinstance(verdict, Paused):
        rule.set_aside(int(number))
        return verdict.reason
    return ""


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_is_expected_to_gain_most_goes_on_from_behind(sign: float) -> None:
    """Each trial is worse by its feature at the first rung, and better by as much at the second."""
    rule = ProjectedHalving(Direction.MINIMIZE if sign > 0 else Direction.MAXIMIZE, THIRDS)
    for number, feature in enumerate((0.0, 0.2, 0.4, 0.6, 0.7)):
        pauses(rule, number, 3, sign * feature, feature)
        rule.taken_up(number)
        rule.judge(look(number, 9, -sign * feature, feature), lambda: False)
    assert not pauses(rule, 5, 3, sign * 0.9, 0.9)  # the last of six there, by what it measured
    reason = pauses(rule, 6, 3, sign * 0.1, 0.1)
    assert "by its expected end" in reason
    assert "place 1 " not in reason


def test_who_waits_is_taken_up_once_it_is_known_what_it_will_gain() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    assert "3 are needed" in pauses(rule, 0, 3, 0.9, 0.9)
    for number, feature in enumerate((0.0, 0.1, 0.2, 0.3, 0.4), start=1):
        pauses(rule, number, 3, feature, feature)
        rule.taken_up(number)
        if number == 3:
            assert rule.revive(last=False) is None
        rule.judge(look(number, 9, -feature, feature), lambda: False)
    assert rule.revive(last=False) == 0


@pytest.mark.parametrize("seed", range(25))
def test_without_configurations_it_is_pausing_halving(seed: int) -> None:
    draw = random.Random(seed)
    noise = draw.choice([0.0, 0.05])
    rules = [kind(Direction.MAXIMIZE, THIRDS, noise=noise) for kind in (PausingHalving, ProjectedHalving)]
    running: dict[int, int] = {}
    for step in range(120):
        number, last = draw.randrange(30), step > 90
        revived = [rule.revive(last=last) for rule in rules]
        assert revived[0] == revived[1]
        if revived[0] is not None:
            running[revived[0]] = running.get(revived[0], 0)
            continue
        at = running.get(number, 0)
        if at > 1 or number in rules[0]._waiting:
            continue
        looked = look(number, (3, 9)[at], draw.choice([draw.random(), 0.5]))
        verdicts = [rule.judge(looked, lambda: False) for rule in rules]
        assert verdicts[0] == verdicts[1]
        running[number] = at + 1
        if verdicts[0] is not None:
            for rule in rules:
                rule.set_aside(number)
    assert rules[0]._waiting == rules[1]._waiting


@pytest.mark.parametrize("seed", range(25))
def test_who_leads_by_what_it_measured_is_never_kept_waiting_at_the_end(seed: int) -> None:
    """Whatever was learned: where the order is that of the end, the best leads each rung."""
    draw = random.Random(seed)
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    values = {}
    for number in range(20):
        features = [draw.random() for _ in range(3)]
        values[number] = draw.random()
        if not pauses(rule, number, 3, values[number], *features) or draw.random() < 0.3:
            rule.taken_up(number)
            pauses(rule, number, 9, draw.random() - 2 * features[0], *features)
    taken = set()
    while (number := rule.revive(last=True)) is not None:
        taken.add(number)
    waiting = [number for number, level in rule._waiting.items() if level[1] == 3]
    assert min(values, key=values.__getitem__) not in waiting


def test_the_order_in_which_trials_came_does_not_matter_for_how_they_stand() -> None:
    draw = random.Random(1)
    trials = [(number, draw.random(), draw.random(), [draw.random(), draw.random()]) for number in range(12)]
    orders = []
    for _ in range(6):
        draw.shuffle(trials)
        rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
        looks = [(number, 3, first, *features) for number, first, _, features in trials]
        further = [(number, 9, second - features[0], *features) for number, _, second, features in trials if number < 8]
        draw.shuffle(further)
        for looked in (*looks, *further):
            rule.recall(look(*looked))
        orders.append(list(rule._ladder.order((27, 3))))
    assert all(order == orders[0] for order in orders)
    measured = sorted(trials, key=lambda trial: trial[1])
    assert orders[0] != [number for number, *_ in measured]


def test_a_rung_that_was_passed_over_is_no_gain_of_one() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    for number in range(6):
        rule.recall(look(number, 3, number / 10, number / 10))
        rule.recall(look(number, 27, 1 - number / 10, number / 10))
    assert not rule._ladder.how((27, 3))


def test_thousands_of_trials_stand_in_the_order_of_a_plain_sort() -> None:
    draw = random.Random(3)
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    trials = {number: (draw.choice([0.25, draw.random()]), (draw.random(),)) for number in range(2000)}
    for number, (value, features) in trials.items():
        rule.recall(look(number, 3, value, *features))
        if number < 40:
            rule.recall(look(number, 9, value - features[0], *features))
    order = list(rule._ladder.order((27, 3)))
    slope = weight(rule, (27, 3))
    leader = min(trials, key=lambda number: (trials[number][0], number))
    expected = sorted(
        trials, key=lambda number: (round((trials[number][0] + slope * trials[number][1][0]) * 2**30), number)
    )
    assert slope == pytest.approx(-1.0, abs=0.05)
    assert order == [leader, *(number for number in expected if number != leader)]
    assert [rule._ladder.before(number, (27, 3)) for number in order[:50]] == list(range(50))


# -- in a search ----------------------------------------------------------------------------------------

AS_MEASURED = Strategy("pausing halving", {"project": False})


def searched(table: Table) -> list[float]:
    """Mean regrets of random search with the rule that goes by measurements, and with the one that goes by ends."""
    rules = (AS_MEASURED, Strategy("pausing halving"))
    entrants = [Entrant(str(rule), Strategy("random"), rule, THIRDS) for rule in rules]
    return [statistics.fmean(result.regrets(20.0)) for result in compete(table, entrants, Terms(20, 1, 20.0))]


def test_where_settings_work_late_more_is_found() -> None:
    as_measured, by_ends = searched(late(0))
    assert by_ends < 0.8 * as_measured


def test_where_the_order_keeps_it_costs_little() -> None:
    as_measured, by_ends = searched(synthetic(1))
    assert by_ends < 1.1 * as_measured


def test_it_can_be_left_out_and_is_where_there_is_a_trade_off() -> None:
    rule, _ = make_rule(AS_MEASURED, Direction.MINIMIZE, 1, THIRDS)
    assert type(rule) is PausingHalving
    assert type(make_rule(Strategy("pausing halving"), Direction.MINIMIZE, 1, THIRDS)[0]) is ProjectedHalving
    with pytest.raises(UserError, match="project requires true or false, got 'no'"):
        make_rule(Strategy("pausing halving", {"project": "no"}), Direction.MINIMIZE, 1, THIRDS)
    with pytest.raises(UserError, match="has no option 'project'"):
        make_rule(AS_MEASURED, Direction.MINIMIZE, 1, THIRDS, weighs=True)


def crossing(length: int, first: int, second: int, count: int, start: int = 0) -> list[Look]:
    """Trials that are worse by their feature at one progress and better by as much at another, slope -2."""
    looks = []
    for number in range(start, start + count):
        feature = (number % 10) / 10
        looks.append(Look(number, first, feature, length, features=(feature,)))
        looks.append(Look(number, second, -feature + 0.01 * math.sin(number), length, features=(feature,)))
    return looks


def weight(rule: ProjectedHalving, level: tuple[int, int]) -> float:
    return float(rule._ladder._at(level)._weights_F[0])


@pytest.mark.parametrize("gains_first", [False, True])
def test_trials_of_another_length_are_told_apart(gains_first: bool) -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    looks = crossing(27, 3, 9, 8)
    others = [Look(50 + n, 2, n / 10, 18, features=(n / 10,)) for n in range(3)]
    for looked in [*looks, *others] if gains_first else [*others, *looks]:
        rule.recall(looked)
    assert rule._ladder.how((27, 3))
    assert not rule._ladder.how((18, 2))


def test_a_rung_that_is_reached_after_gains_are_known_stands_by_them() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, (3, 9, 27))
    for looked in crossing(27, 9, 27, 8):
        rule.recall(looked)
    rule.recall(Look(20, 3, 0.5, 27, features=(0.5,)))
    assert not rule._ladder.how((27, 3))  # from there to 9 nobody has come
    rule.recall(Look(20, 9, 0.5, 27, features=(0.5,)))
    assert rule._ladder.how((27, 9))


def test_trials_that_measure_in_different_places_do_not_count_twice() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, (Fraction(1, 9), Fraction(1, 3), Fraction(1)))
    for looked in [*crossing(900, 100, 300, 12), *crossing(900, 128, 384, 8, start=30)]:
        rule.recall(looked)
    assert weight(rule, (900, 100)) == pytest.approx(-2, abs=0.1)
    assert weight(rule, (900, 128)) == pytest.approx(-2, abs=0.1)


def test_the_end_is_a_rung_whoever_said_which_there_are() -> None:
    for rungs in ((Fraction(1, 9), Fraction(1, 3)), (Fraction(1, 9), Fraction(1, 3), Fraction(1)), (100, 300)):
        rule = ProjectedHalving(Direction.MINIMIZE, rungs)
        for looked in crossing(900, 300, 900, 12):
            rule.recall(looked)
        assert weight(rule, (900, 300)) == pytest.approx(-2, abs=0.1)


def test_a_measurement_once_more_is_no_gain_once_more() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS)
    for looked in crossing(27, 3, 9, 8):
        rule.recall(looked)
        rule.recall(looked)
    (gains,) = rule._ladder._lengths[27]._gains[27, 3].values()
    assert len(gains) == 8


def test_noise_spares_those_near_the_last_that_is_expected_to_go_on() -> None:
    rule = ProjectedHalving(Direction.MINIMIZE, THIRDS, noise=0.01)
    for looked in crossing(27, 3, 9, 8):
        rule.recall(looked)
    ladder = rule._ladder
    order, expected = list(ladder.order((27, 3))), ladder._at((27, 3)).expected_N
    cut = expected[ladder._at((27, 3))._rows.places[order[3]]]
    assert ladder.spared((27, 3), 4, 0.0) == 4
    assert ladder.spared((27, 3), 4, 0.01) == 4
    near = {number for number in order if expected[ladder._at((27, 3))._rows.places[number]] <= cut + 0.5}
    assert ladder.spared((27, 3), 4, 0.25) == len(near | {order[0]})


def test_a_study_made_anew_from_its_record_stands_as_the_one_that_lived() -> None:
    search = Search(60, Strategy("random"), Strategy("pausing halving"), seed=1, rungs=THIRDS)
    table = late(0)
    question, history, at = table.asked_by(search), History(), itertools.count()
    study = Study(question, None, history, 1)
    running: dict[int, Iterator[Point]] = {}
    trials: dict[int, Assignment] = {}

    def record(event: Event) -> None:
        history.add(json.loads(encode(event, float(next(at)))))

    compared = weighed = 0
    draw = random.Random(2)
    for step in range(260):
        if len(running) < 4:
            number = study.revive(last=False)
            if number is None:
                assignment = study.ask()
                number = assignment.number
                trials[number] = assignment
            record(Started(trials[number], 0, resumed=number in history.trials))
            done = history.trials[number].progress
            points = table.answer(trials[number].parameters)[0].points
            running[number] = iter([p for p in points if p.progress in (27, 81, 243) and p.progress > done])
        number = draw.choice(sorted(running))
        point = next(running[number])
        measurement = Measurement(point.progress, {"validation/loss": point.value})
        record(Progressed(number, measurement, 1.0, 243))
        verdict = study.report(trials[number], measurement, length=243)
        if isinstance(verdict, Paused):
            record(Interrupted(number, 1.0, paused=verdict.reason))
            study.pause(number)
            del running[number]
        elif point.progress == 243:
            record(Ended(number, Outcome(Ending.COMPLETE), 1.0, point.value))
            study.tell(number, Outcome(Ending.COMPLETE))
            del running[number]
        if step % 20 == 19:
            rules = [one._rule for one in (study, Study(question, None, history, 1))]
            assert all(isinstance(rule, ProjectedHalving) for rule in rules)
            one, other = (rule for rule in rules if isinstance(rule, ProjectedHalving))
            assert one._waiting == other._waiting
            for level in one._ladder.rungs:
                assert list(one._ladder.order(level)) == list(other._ladder.order(level))
                compared += 1
                weighed += bool(one._ladder.how(level))
    assert compared > 20
    assert weighed > 5
