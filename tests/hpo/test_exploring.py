"""Places that no model chose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from hpo.encoding import Encoding
from hpo.exploring import Explorer, key, which_look
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.trials import Value

RATE = Parameter("rate", FloatRange(1e-5, 1e-1, log=True))
PLAIN = Space((RATE, Parameter("batch", Choices((8, 16, 32))), Parameter("dropout", FloatRange(0.0, 0.5))))
BRANCHED = Space(
    (
        RATE,
        Parameter("kind", Choices(("adamw", "sgd"))),
        Parameter("momentum", FloatRange(0.0, 0.9), {"kind": ("sgd",)}),
        Parameter("nesterov", Choices((True, False)), {"kind": ("sgd",)}),
    )
)
BEST: dict[str, Value] = {"rate": 1e-2, "batch": 8, "dropout": 0.0}


def fits(parameters: Mapping[str, Value]) -> bool:
    return True


def look(space: Space, best: Mapping[str, Value], which: int, near: list[Mapping[str, Value]] | None = None) -> object:
    encoding = Encoding(space)
    places = encoding.units_of([best, *(near or [])])
    return Explorer(encoding, seed=3).beside(best, which, 9 + 5 * which, {key(places[0])}, places, fits)


def looks(space: Space, best: Mapping[str, Value], count: int) -> list[dict[str, Value]]:
    """One after the other, each kept away from those before."""
    found: list[dict[str, Value]] = []
    for which in range(1, count + 1):
        place = look(space, best, which, list(found))
        assert isinstance(place, dict)
        found.append(place)
    return found


def test_of_three_that_explore_two_are_beside_the_best_and_the_first_two_are_spread() -> None:
    assert [which_look(number) for number in range(4, 60, 5)] == [None, None, 1, 2, None, 3, 4, None, 5, 6, None, 7]


def test_looks_are_counted_without_gaps_so_that_each_setting_has_its_turn() -> None:
    looks = [which_look(number, settled=True) for number in range(200) if number % 5 < 4]
    assert [look for look in looks if look is not None] == list(range(1, 121))
    assert [which_look(number, settled=True) for number in range(4, 60, 5)] == [
        which_look(number) for number in range(4, 60, 5)
    ]
    assert all(which_look(number) is None for number in range(200) if number % 5 < 4)


def test_names_are_as_far_from_each_other_wherever_they_stand_in_the_list() -> None:
    names = tuple("abcdefghijklmnop")
    space = Space((Parameter("name", Choices(names)),))
    best: dict[str, Value] = {"name": "e"}
    tried = [best, *looks(space, best, 13)]
    assert len({one["name"] for one in tried}) == 14


def test_what_a_setting_hangs_on_takes_each_value_that_would_do() -> None:
    space = Space(
        (
            RATE,
            Parameter("kind", Choices(("adamw", "sgd", "nadam"))),
            Parameter("momentum", FloatRange(0.0, 0.9), {"kind": ("sgd", "nadam")}),
            Parameter("decay", FloatRange(0.0, 0.1)),
        )
    )
    best: dict[str, Value] = {"rate": 1e-2, "kind": "adamw", "decay": 0.05}
    found = [look(space, best, which) for which in (3, 7, 11)]  # the momentum's turns
    assert {one["kind"] for one in found if isinstance(one, dict)} == {"sgd", "nadam"}


def test_a_setting_whose_conditions_undo_each_other_is_passed_over() -> None:
    space = Space(
        (
            Parameter("kind", Choices(("a", "b", "c", "d"))),
            Parameter("way", Choices(("x", "y")), {"kind": ("b", "c")}),
            Parameter("depth", IntRange(1, 9), {"way": ("y",), "kind": ("d", "c")}),
        )
    )
    for which in range(1, 10):
        found = look(space, {"kind": "a"}, which)
        assert isinstance(found, dict)
        assert found["kind"] != "a"


def test_one_setting_is_changed_and_each_in_turn() -> None:
    changed = []
    for found in looks(PLAIN, BEST, 8):
        (name,) = [name for name in BEST if found[name] != BEST[name]]
        changed.append(name)
    # The batch size has two other values: from then on its turn goes to the next.
    assert changed == ["rate", "batch", "dropout", "rate", "batch", "dropout", "rate", "dropout"]


def test_values_of_a_setting_are_spread_over_its_range() -> None:
    alone = Space((RATE,))
    found = looks(alone, {"rate": 1e-2}, 6)
    places = np.sort([0.75, *(float(Encoding(alone).units(one)[0]) for one in found)])
    assert np.diff([0.0, *places, 1.0]).max() < 0.25
    assert np.diff(places).min() >= 0.1


def test_what_lies_near_a_tried_place_is_left_out() -> None:
    tried: list[Mapping[str, Value]] = [
        BEST | {"rate": 10.0 ** -(1 + 4 * step / 20)} for step in range(21)
    ]  # 0.05 of the axis apart
    assert look(PLAIN, BEST, 1, tried) != look(PLAIN, BEST, 1)
    found = look(PLAIN, BEST, 1, tried)
    assert isinstance(found, dict)
    assert found["rate"] == BEST["rate"]  # no value of it was left


def test_a_setting_that_is_not_there_is_made_to_be_and_what_comes_with_it_is_new() -> None:
    best: dict[str, Value] = {"rate": 1e-2, "kind": "adamw"}
    for found in looks(BRANCHED, best, 8):
        assert found["rate"] == best["rate"] or found == {"rate": found["rate"], "kind": "adamw"}
        if found["kind"] == "sgd":
            assert found.keys() == {"rate", "kind", "momentum", "nesterov"}
    momenta = [found["momentum"] for found in looks(BRANCHED, best, 8) if found["kind"] == "sgd"]
    assert len(momenta) == 6  # for the kind and two that hang on it, each in turn
    assert len(set(momenta)) >= 5


def test_settings_of_settings_are_made_to_be_too() -> None:
    nested = Space(
        (
            Parameter("kind", Choices(("a", "b", "c"))),
            Parameter("way", Choices(("x", "y")), {"kind": ("b", "c")}),
            Parameter("depth", IntRange(1, 9), {"way": ("y",)}),
        )
    )
    encoding = Encoding(nested)
    place = encoding.units({"kind": "a"})
    reached = {turn: encoding.parameters(encoding.activated(place, 2, turn)) for turn in (0, 1)}
    assert {turn: (found["kind"], found["way"]) for turn, found in reached.items()} == {0: ("b", "y"), 1: ("c", "y")}
    assert all("depth" in found for found in reached.values())
    assert encoding.parameters(place) == {"kind": "a"}  # the place it began from is as it was
    assert encoding.active(encoding.snap(place[None, :])[0]).tolist() == [True, False, False]


def test_what_does_not_fit_is_passed_over() -> None:
    encoding = Encoding(PLAIN)
    place = encoding.units(BEST)
    found = Explorer(encoding, 3).beside(
        BEST, 1, 14, {key(place)}, place[None, :], lambda parameters: parameters["batch"] == 8
    )
    assert found is not None
    assert found["batch"] == 8
    assert found != BEST


def test_where_all_was_tried_there_is_nothing_beside_the_best() -> None:
    space = Space((Parameter("batch", Choices((8, 16))), Parameter("kind", Choices(("a", "b")))))
    encoding = Encoding(space)
    places = encoding.units_of([{"batch": one, "kind": two} for one, two in itertools.product((8, 16), "ab")])
    tried = {key(place) for place in places}
    best: dict[str, Value] = {"batch": 8, "kind": "a"}
    assert Explorer(encoding, 3).beside(best, 1, 14, tried, places, fits) is None


@pytest.mark.parametrize("number", [14, 400])
def test_a_look_is_a_function_of_seed_and_number(number: int) -> None:
    encoding = Encoding(BRANCHED)
    best: dict[str, Value] = {"rate": 1e-2, "kind": "adamw"}
    place = encoding.units(best)
    found = [Explorer(encoding, seed).beside(best, 2, number, {key(place)}, place[None, :], fits) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
