"""The sampler `auto`, its model and the cube it works in."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from hpo.encoding import Encoding
from hpo.errors import UserError
from hpo.expense import Expense
from hpo.observations import Observed, Seen
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.suggesting import ModelBased, _Model, expected_improvement, make_suggester
from hpo.surrogate import Observations, Surrogate
from hpo.sweep import Strategy
from hpo.trials import Direction, Ending, Value

RATE = Parameter("rate", FloatRange(1e-5, 1e-1, log=True))
SPACE = Space(
    (
        RATE,
        Parameter("batch", Choices((8, 16, 32, 64))),
        Parameter("kind", Choices(("adamw", "sgd"))),
        Parameter("momentum", FloatRange(0.0, 1.0, step=0.1), {"kind": ("sgd",)}),
        Parameter("layers", IntRange(1, 100, log=True)),
        Parameter("width", IntRange(64, 256, step=64)),
    )
)
PLAIN = Space((RATE, Parameter("dropout", FloatRange(0.0, 0.5))))


def fits(values: object) -> bool:
    return True


def told(observed: Observed, number: int, parameters: dict[str, Value], loss: float, ending: Ending) -> None:
    observed.began(number, parameters)
    for progress in (100, 300) if ending is Ending.STOPPED else (100, 300, 900):
        observed.measured(number, progress, loss + 100 / progress, 900)
    observed.ended(number, ending, loss + 1 / 9 if ending is Ending.COMPLETE else None)


def loss(parameters: dict[str, Value]) -> float:
    rate, dropout = parameters["rate"], parameters["dropout"]
    assert isinstance(rate, float)
    assert isinstance(dropout, float)
    return (math.log10(rate) + 3) ** 2 / 4 + (dropout - 0.1) ** 2


def test_every_configuration_comes_back_from_the_cube_as_it_was() -> None:
    encoding, generator = Encoding(SPACE), random.Random(1)
    for _ in range(300):
        drawn = SPACE.draw(generator)
        again = encoding.parameters(encoding.units(drawn))
        assert again.keys() == drawn.keys()
        for name, value in drawn.items():
            assert type(again[name]) is type(value)
            assert again[name] == pytest.approx(value) if isinstance(value, float) else again[name] == value


def test_every_place_of_the_cube_is_a_configuration_and_snapping_finds_it() -> None:
    encoding = Encoding(SPACE)
    places = np.random.default_rng(1).random((300, encoding.axes))
    snapped = encoding.snap(places)
    for place, own in zip(places, snapped, strict=True):
        found = encoding.parameters(place)
        assert {name: value for name, value in found.items() if not isinstance(value, float)} == {
            name: value for name, value in encoding.parameters(own).items() if not isinstance(value, float)
        }
        for parameter in SPACE.parameters:
            if parameter.name in found:
                assert parameter.dimension.contains(found[parameter.name])
        np.testing.assert_allclose(encoding.units(found), own, atol=1e-9)


def test_numbers_keep_their_order_and_names_have_none() -> None:
    encoding = Encoding(Space((Parameter("batch", Choices((64, 8, 16))), Parameter("kind", Choices(("a", "b", "c"))))))
    features = encoding.features(
        np.array([encoding.units({"batch": b, "kind": k}) for b, k in ((8, "a"), (16, "b"), (64, "c"))])
    )
    assert features[:, 0].tolist() == [0.0, 0.5, 1.0]
    apart = [float(np.linalg.norm(features[i, 1:] - features[j, 1:])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert apart == pytest.approx([1.0, 1.0, 1.0])


def test_the_gradient_of_the_model_is_that_of_its_loss() -> None:
    generator = np.random.default_rng(2)
    seen = Observations(
        generator.random((14, 3)),
        generator.choice([0.0, 0.5, 1.0], 14),
        generator.integers(0, 3, 14),
        generator.normal(size=14),
    )
    model = Surrogate(seen)
    theta = model._centre + 0.3 * generator.normal(size=len(model._centre))
    _, gradient = model._loss(theta)
    for index in range(len(theta)):
        step = np.zeros_like(theta)
        step[index] = 1e-5
        numeric = (model._loss(theta + step)[0] - model._loss(theta - step)[0]) / 2e-5
        assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_the_model_returns_what_it_was_told_and_doubts_what_is_far() -> None:
    places = np.linspace(0, 1, 7)[:, None]
    seen = Observations(places, np.zeros(7), np.zeros(7, dtype=np.int64), np.sin(5 * places[:, 0]))
    mean, spread = Surrogate(seen).predict(np.array([[places[2, 0]], [3.0]]), 0.0, 0)
    assert mean[0] == pytest.approx(np.sin(5 * places[2, 0]), abs=0.1)
    assert spread[1] > 3 * spread[0]


def test_early_measurements_tell_of_the_end_as_far_as_they_did_before() -> None:
    """Of trials that all agree early and late, one measured early alone is expected to end as its early value says."""
    generator = np.random.default_rng(3)
    places = generator.random((12, 1))
    quality = np.sin(6 * places[:, 0])
    early, late = np.concatenate([places, places[:11]]), np.array([1.0] * 12 + [0.0] * 11)
    levels = np.array([0] * 12 + [1] * 11)
    value = np.concatenate([quality - quality.mean(), (quality - quality.mean())[:11]])
    model = Surrogate(Observations(early, late, levels, value))
    mean, _ = model.predict(places[11:], 0.0, 1)
    assert mean[0] == pytest.approx(quality[11] - quality.mean(), abs=0.35)


def test_expected_improvement_is_what_sampling_says() -> None:
    drawn = np.random.default_rng(0).normal(0.3, 0.5, 400_000)
    found = expected_improvement(np.array([0.3]), np.array([0.5]), 0.1)
    assert found[0] == pytest.approx(np.maximum(0.1 - drawn, 0).mean(), abs=2e-3)


def test_the_first_is_the_middle_and_no_configuration_comes_twice() -> None:
    suggester, observed = ModelBased(PLAIN, Direction.MINIMIZE, 0), Observed(Direction.MINIMIZE)
    asked = []
    for number in range(12):
        parameters = suggester.suggest(number, observed, fits)
        asked.append(parameters)
        told(observed, number, parameters, loss(parameters), Ending.COMPLETE if number % 2 else Ending.STOPPED)
    assert asked[0]["rate"] == pytest.approx(1e-3)
    assert asked[0]["dropout"] == 0.25
    assert len({tuple(parameters.items()) for parameters in asked}) == 12


@pytest.mark.parametrize("direction", Direction)
def test_it_comes_near_the_best_in_either_direction(direction: Direction) -> None:
    sign = 1 if direction is Direction.MINIMIZE else -1
    suggester, observed = ModelBased(PLAIN, direction, 1), Observed(direction)
    best = math.inf
    for number in range(16):
        parameters = suggester.suggest(number, observed, fits)
        best = min(best, loss(parameters))
        observed.began(number, parameters)
        observed.measured(number, 900, sign * loss(parameters), 900)
        observed.ended(number, Ending.COMPLETE, sign * loss(parameters))
    assert best < 0.004


def test_the_same_trials_and_seed_give_the_same_suggestion_whatever_was_asked_before() -> None:
    def asked(numbers: list[int]) -> dict[str, Value]:
        observed = Observed(Direction.MINIMIZE)
        suggester = ModelBased(PLAIN, Direction.MINIMIZE, 5)
        generator = random.Random(0)
        for number in range(9):
            if number in numbers:
                suggester.suggest(number, observed, fits)
            parameters = PLAIN.draw(generator)
            told(observed, number, parameters, loss(parameters), Ending.COMPLETE)
        return suggester.suggest(9, observed, fits)

    assert asked([]) == asked([2, 5, 8])


def test_what_is_expected_not_to_fit_is_not_suggested() -> None:
    suggester, observed = ModelBased(PLAIN, Direction.MINIMIZE, 2), Observed(Direction.MINIMIZE)

    def small(values: object) -> bool:
        assert isinstance(values, dict)
        return bool(values["dropout"] < 0.2)

    for number in range(14):
        parameters = suggester.suggest(number, observed, small)
        assert small(parameters)
        told(observed, number, parameters, -loss(parameters), Ending.COMPLETE)


def test_diverged_trials_keep_it_away_and_failed_ones_say_nothing() -> None:
    suggester, observed = ModelBased(PLAIN, Direction.MINIMIZE, 3), Observed(Direction.MINIMIZE)
    above = 0
    for number in range(24):
        parameters = suggester.suggest(number, observed, fits)
        rate = parameters["rate"]
        assert isinstance(rate, float)
        above += rate > 1e-2
        observed.began(number, parameters)
        if rate > 1e-2:
            observed.ended(number, Ending.DIVERGED, None)
        elif number == 4:
            observed.ended(number, Ending.FAILED, None)
        else:
            observed.measured(number, 900, loss(parameters), 900)
            observed.ended(number, Ending.COMPLETE, loss(parameters))
    assert above <= 6  # of 24; evenly drawn it would be a quarter of those before and after the model, 6 of 24


def test_slots_that_run_at_once_are_given_different_places() -> None:
    suggester, observed = ModelBased(PLAIN, Direction.MINIMIZE, 4), Observed(Direction.MINIMIZE)
    generator = random.Random(0)
    for number in range(8):
        parameters = PLAIN.draw(generator)
        told(observed, number, parameters, loss(parameters), Ending.COMPLETE)
    at_once = []
    for number in range(8, 16):
        parameters = suggester.suggest(number, observed, fits)
        observed.began(number, parameters)
        at_once.append(Encoding(PLAIN).units(parameters))
    apart = [float(np.abs(one - other).max()) for i, one in enumerate(at_once) for other in at_once[:i]]
    assert min(apart) >= 0.06


def test_a_model_of_many_trials_is_made_of_the_leading_and_some_others() -> None:
    observed = Observed(
        Direction.MINIMIZE, [Seen({"rate": 1e-3, "dropout": 0.0}, [(900, 0.0)], 900, Ending.COMPLETE, 0.0)]
    )
    for number in range(500):
        told(observed, number, {"rate": 1e-3, "dropout": 0.1}, float(number + 1), Ending.COMPLETE)
    observed.began(500, {"rate": 1e-2, "dropout": 0.3})
    chosen = observed.chosen(60, 20, 12, seed=1)
    assert len(chosen) == 61
    assert [seen.value for seen in chosen[:3]] == pytest.approx([0.0, 1 + 1 / 9, 2 + 1 / 9])
    assert {seen.place for seen in chosen} >= set(range(20))
    assert chosen[-1].ending is None
    assert observed.chosen(60, 20, 12, seed=1) == chosen
    assert observed.chosen(60, 20, 12, seed=2) != chosen


def test_trials_that_wait_do_not_make_the_model_larger() -> None:
    observed = Observed(Direction.MINIMIZE)
    for number in range(300):
        observed.began(number, {"rate": 1e-3, "dropout": 0.1})
        observed.measured(number, 100, float(300 - number), 900)
        observed.set_aside(number)
    chosen = observed.chosen(60, 20, 12, seed=1)
    assert len(chosen) == 60
    assert {seen.place for seen in chosen} >= {*range(12), *range(280, 300)}
    observed.taken_up(100)  # it runs again, and what runs is always there
    assert 100 in {seen.place for seen in observed.chosen(60, 20, 12, seed=1)}
    observed.measured(100, 300, 0.5, 900)
    observed.set_aside(100)
    assert 100 in {seen.place for seen in observed.chosen(60, 1, 0, seed=1)}  # it came farthest
    observed.ended(100, Ending.FAILED, None)
    assert 100 not in {seen.place for seen in observed.chosen(300, 20, 12, seed=1)}
    assert observed.useful == 299


def timed(number: int, observed: Observed, parameters: dict[str, Value]) -> None:
    """A trial whose loss says nothing of its width, and whose time says all."""
    rate, width = parameters["rate"], parameters["width"]
    assert isinstance(rate, float)
    assert isinstance(width, int)
    observed.began(number, parameters)
    for progress in (100, 300, 900):
        observed.measured(number, progress, (math.log10(rate) + 3) ** 2 / 4 + 100 / progress, 900)
        observed.took(number, progress, progress * width**2 / 1e6)
    observed.ended(number, Ending.COMPLETE, (math.log10(rate) + 3) ** 2 / 4 + 1 / 9)


SIZED = Space((RATE, Parameter("width", Choices((64, 128, 256, 512, 1024)))))


def test_the_cost_of_a_training_is_learned_from_how_long_others_took() -> None:
    observed, generator, encoding = Observed(Direction.MINIMIZE), random.Random(3), Encoding(SIZED)
    for number in range(16):
        timed(number, observed, SIZED.draw(generator))
    asked: list[dict[str, Value]] = [{"rate": 1e-3, "width": width} for width in (64, 256, 1024)]
    small, middle, large = Expense(encoding, observed.trials).of(encoding.features(encoding.units_of(asked)))
    assert middle / small == pytest.approx(16, rel=0.3)
    assert large / middle == pytest.approx(16, rel=0.3)


@pytest.mark.parametrize("length", [900, None])
def test_a_training_that_was_cut_short_costs_what_a_whole_one_would_have(length: int | None) -> None:
    observed, generator, encoding = Observed(Direction.MINIMIZE), random.Random(2), Encoding(SIZED)
    for number in range(12):
        parameters = SIZED.draw(generator)
        width = parameters["width"]
        assert isinstance(width, int)
        observed.began(number, parameters)
        for progress in (100, 900) if number % 2 else (100,):
            observed.measured(number, progress, 4.0, length)
            observed.took(number, progress, progress * width / 1e4)
        observed.ended(number, Ending.COMPLETE if number % 2 else Ending.STOPPED, 4.0 if number % 2 else None)
    asked: list[dict[str, Value]] = [{"rate": 1e-3, "width": width} for width in (64, 1024)]
    small, large = Expense(encoding, observed.trials).of(encoding.features(encoding.units_of(asked)))
    assert large / small == pytest.approx(16, rel=0.2)


def test_where_nothing_or_all_the_same_was_timed_costs_do_not_differ() -> None:
    observed, generator, encoding = Observed(Direction.MINIMIZE), random.Random(3), Encoding(PLAIN)
    for number in range(6):
        told(observed, number, PLAIN.draw(generator), 1.0, Ending.COMPLETE)
    places = encoding.features(encoding.units_of([PLAIN.draw(generator) for _ in range(4)]))
    assert Expense(encoding, observed.trials).of(places).tolist() == [1.0] * 4
    for number in range(6):
        observed.took(number, 900, 30.0)
    assert Expense(encoding, observed.trials).of(places).tolist() == [1.0] * 4


def test_of_places_that_promise_alike_the_cheaper_ones_come_first() -> None:
    asked: dict[bool, list[Value]] = {False: [], True: []}
    for seed, cost_aware in itertools.product(range(5), asked):
        suggester = ModelBased(SIZED, Direction.MINIMIZE, seed, cost_aware=cost_aware)
        observed = Observed(Direction.MINIMIZE)
        for number in range(7):
            timed(number, observed, suggester.suggest(number, observed, fits))
        asked[cost_aware] += [seen.parameters["width"] for seen in observed.trials[4:]]
    assert set(asked[True]) <= {64, 128}
    assert sum(width in (512, 1024) for width in asked[False]) >= 5


def test_where_trials_are_cut_short_every_fifth_explores() -> None:
    """Some look the same whatever was measured; the others are the best trial with one setting changed."""
    searches = []
    for direction, cut_short in itertools.product(Direction, (True, False)):
        suggester, observed = ModelBased(PLAIN, direction, 4), Observed(direction)
        asked: list[dict[str, Value]] = []
        for number in range(25):
            asked.append(suggester.suggest(number, observed, fits))
            if cut_short and number in (14, 19):
                sign = 1 if direction is Direction.MINIMIZE else -1
                best = min(asked[:number], key=lambda parameters: sign * loss(parameters))
                assert len(_changed(asked[number], best)) == 1
            short = cut_short and number % 2 == 1
            told(observed, number, asked[-1], loss(asked[-1]), Ending.STOPPED if short else Ending.COMPLETE)
        searches.append(asked)
    down, _, up, _ = searches
    assert [number for number in range(5, 25) if down[number] == up[number]] == [9, 24]


@pytest.mark.parametrize("others", ["abc", "abcd"])
def test_where_next_to_nothing_is_expected_each_setting_of_the_best_is_looked_at(others: str) -> None:
    space = Space((RATE, *(Parameter(name, FloatRange(0.0, 1.0)) for name in others)))
    looked: dict[bool, dict[int, set[str]]] = {True: {}, False: {}}
    for cut_short in (True, False):
        suggester, observed = ModelBased(space, Direction.MINIMIZE, 4), Observed(Direction.MINIMIZE)
        asked: list[dict[str, Value]] = []
        for number in range(48):
            asked.append(suggester.suggest(number, observed, fits))
            if number >= 25:
                least = sorted(map(_flat, asked[:number]))[2]
                beside_one = [_changed(asked[number], one) for one in asked[:number] if _flat(one) <= least]
                for changed in beside_one:
                    if len(changed) == 1:
                        looked[cut_short][number] = changed
            short = cut_short and number % 2 == 1
            told(observed, number, asked[-1], _flat(asked[-1]), Ending.STOPPED if short else Ending.COMPLETE)
    assert len(looked[False]) <= 3
    beside = {number for number in range(25, 48) if number % 5 in (1, 2, 3)} | {29, 34, 44}
    assert beside.issuperset(looked[True])
    assert len(looked[True]) >= 0.8 * len(beside)
    assert set.union(*looked[True].values()) == {"rate", *others}


def _flat(parameters: dict[str, Value]) -> float:
    a = parameters["a"]
    assert isinstance(a, float)
    return 3.0 + 1e-3 * math.log10(a + 0.1)


def _changed(parameters: dict[str, Value], other: dict[str, Value]) -> set[str]:
    return {name for name in parameters if parameters[name] != other[name]}


def test_a_look_is_beside_a_trial_that_has_measured() -> None:
    observed = Observed(Direction.MINIMIZE)
    seen = [Seen({"rate": 10.0**-power, "dropout": 0.1}) for power in (2, 3, 4)]
    for trial in seen[:2]:
        trial.curve, trial.length = [(300, 3.0 + float(trial.parameters["rate"]))], 900  # type: ignore[arg-type]
    model = _Model(Encoding(PLAIN), seen, 1.0)
    assert model.best() == 1
    assert observed.useful == 0


def test_measurements_of_a_trial_that_was_killed_are_none() -> None:
    suggester, observed = ModelBased(PLAIN, Direction.MINIMIZE, 4), Observed(Direction.MINIMIZE)
    for number in range(6):
        observed.began(number, suggester.suggest(number, observed, fits))
    observed.measured(0, 100, 3.0, 900)
    observed.ended(0, Ending.KILLED, None)
    observed.cut_short = True
    for number in (6, 14):
        assert suggester.suggest(number, observed, fits).keys() == {"rate", "dropout"}


def test_a_setting_of_one_value_makes_no_place_new() -> None:
    space = Space((RATE, Parameter("fixed", FloatRange(0.1, 0.1))))
    suggester, observed = ModelBased(space, Direction.MINIMIZE, 4), Observed(Direction.MINIMIZE)
    asked: list[dict[str, Value]] = []
    for number in range(30):
        asked.append(suggester.suggest(number, observed, fits))
        rate = asked[-1]["rate"]
        assert isinstance(rate, float)
        short = Ending.STOPPED if number % 2 else Ending.COMPLETE
        told(observed, number, asked[-1], (math.log10(rate) + 3) ** 2, short)
    assert len({parameters["rate"] for parameters in asked}) == 30


@pytest.mark.parametrize("explores", [True, False])
def test_where_others_explore_a_small_chance_of_much_is_left_to_them(
    explores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [Seen({"rate": 1e-3, "dropout": 0.1}, [(900, 3.0)], 900, Ending.COMPLETE, 3.0, place) for place in range(3)]
    encoding = Encoding(PLAIN)
    model = _Model(encoding, seen, 1.0, explores=explores)
    model._mean_N = np.array([-1.0, 0.0, 1.0])
    sure, unlikely = np.array([-1.0, 2.3]), np.array([0.1, 2.0])
    monkeypatch.setattr(model._surrogate, "predict", lambda *where: (sure, unlikely))
    likely, small = model.gain(np.array([[0.2, 0.2], [0.9, 0.9]]))
    assert likely == pytest.approx(0.1 / math.sqrt(2 * math.pi))
    assert bool(small > likely) is explores
    assert small > 0


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="requires true or false, got 'yes'"):
        make_suggester(Strategy("auto", {"cost_aware": "yes"}), PLAIN, Direction.MINIMIZE, 0)
    with pytest.raises(UserError, match="Did you mean 'startup'"):
        make_suggester(Strategy("auto", {"start_up": 3}), PLAIN, Direction.MINIMIZE, 0)
    with pytest.raises(UserError, match="whole number from 1"):
        make_suggester(Strategy("auto", {"startup": 0}), PLAIN, Direction.MINIMIZE, 0)


@pytest.mark.parametrize(
    "dimension",
    [IntRange(1, 2**40), IntRange(1, 10**9, log=True), IntRange(-7, 10**6, step=7), IntRange(8, 200_000, step=8)],
)
def test_a_long_range_of_whole_numbers_is_not_written_out(dimension: IntRange) -> None:
    """Its ends and what lies between come back as they were, and places of the cube as values of the range."""
    encoding = Encoding(Space((Parameter("n", dimension),)))
    draw = random.Random(1)
    steps = (dimension.high - dimension.low) // dimension.step
    for value in (dimension.low, dimension.low + steps * dimension.step, *(dimension.draw(draw) for _ in range(200))):
        found = encoding.parameters(encoding.units({"n": value}))["n"]
        assert isinstance(found, int)
        assert found == pytest.approx(value, rel=1e-12)
        assert dimension.contains(found)
    for unit in (0.0, 1e-9, 0.5, 0.999999, 1.0):
        (place,) = encoding.snap(np.array([[unit]]))
        assert dimension.contains(encoding.parameters(place)["n"])
        assert 0.0 <= float(place[0]) <= 1.0
        assert encoding.snap(place[None, :])[0] == pytest.approx(place, abs=1e-12)
