"""Ranges that a law centres: where its value lies, that the range is never left, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from hpo.encoding import Array, Encoding
from hpo.errors import SweepError
from hpo.observations import Observed
from hpo.space import Choices, FloatRange, Parameter, Space
from hpo.study import plan
from hpo.suggesting import ModelBased
from hpo.trials import Direction, Ending, Value

SWEEP = """objective: models.language_modelling:train
metric: {name: validation/loss, direction: minimize}
space:
  weight_decay: {low: 1e-4, high: 10, log: true, law: adamw timescale}
  learning_rate: {low: 1e-5, high: 1e-1, log: true, law: step law}
  model.width: [32, 64, 128]
fixed:
  data: {source: sample}
  tokens: 200_000
baseline: {learning_rate: 1e-3, weight_decay: 0.1, model.width: 64}
"""
WIDTHS = Parameter("width", Choices((32, 64, 128)))
RANGE = FloatRange(1e-4, 1e-1, log=True)


def space(law: Callable[[Mapping[str, Value]], float]) -> Space:
    return Space((WIDTHS, Parameter("rate", RANGE, law="a law", centre=law)))


def falls(values: Mapping[str, Value]) -> float:
    width = values["width"]
    assert isinstance(width, int)
    return 0.3 / width


def refused(text: str) -> str:
    with pytest.raises(SweepError) as caught:
        plan(text, Path("sweep.yaml"))
    return str(caught.value)


@pytest.mark.parametrize("said", [0.0, -1.0, math.inf, -math.inf, math.nan, 1e-300, 1e300, 1e-4, 1e-1, 3e-3])
def test_the_range_is_never_left_whatever_the_law_says(said: float) -> None:
    encoding = Encoding(space(lambda values: said))
    places = np.concatenate([np.random.default_rng(0).random((200, 2)), [[0, 0], [0, 1], [0, 0.5]]])
    snapped = encoding.snap(places)
    for place, own in zip(places, snapped, strict=True):
        found = encoding.parameters(place)
        assert RANGE.contains(found["rate"])
        np.testing.assert_allclose(encoding.units(found), own, atol=1e-6)
    assert np.isfinite(encoding.features(snapped)).all()


def test_the_middle_is_the_law_and_both_ends_of_the_range_are_reached() -> None:
    encoding = Encoding(space(falls))
    for width in (32, 64, 128):
        one = encoding.units({"width": width, "rate": 1e-2})[0]
        for unit, rate in ((0.0, 1e-4), (0.5, 0.3 / width), (1.0, 1e-1)):
            assert encoding.parameters(np.array([one, unit]))["rate"] == pytest.approx(rate)


@pytest.mark.parametrize("said", [1e-6, 1e-4, 1.05e-4, 1.5e-4, 3e-3, 0.09, 0.0999, 1e-1, 1e2, math.nan])
def test_no_value_gathers_trials_wherever_the_law_lies(said: float) -> None:
    """Evenly drawn, a hundredth of the range at either end or at the law gets at most a tenth of the trials."""
    encoding = Encoding(space(lambda values: said))
    units = np.linspace(0, 1, 2001)
    rates = np.array([encoding.parameters(np.array([0.5, unit]))["rate"] for unit in units], dtype=np.float64)
    assert (np.diff(rates) > 0).all()
    assert (rates[0], rates[-1]) == pytest.approx((1e-4, 1e-1))
    decades = np.log10(rates)
    for place in (-4.0, -1.0, math.log10(said) if 1e-4 < said < 1e-1 else -2.5):
        assert (abs(decades - place) <= 0.01 * 3 / 2).mean() <= 0.1 + 2 / len(units)


@pytest.mark.parametrize("said", [1e-6, 1e2])
def test_a_law_beyond_the_range_leaves_the_axis_as_it_is_without_one(said: float) -> None:
    with_law, without = Encoding(space(lambda values: said)), Encoding(Space((WIDTHS, Parameter("rate", RANGE))))
    for place in np.random.default_rng(1).random((50, 2)):
        one, other = with_law.parameters(place), without.parameters(place)
        assert one["rate"] == pytest.approx(other["rate"])


def test_what_is_as_far_from_the_law_looks_the_same_to_a_model() -> None:
    encoding = Encoding(space(falls))
    for share in (0.1, 1.0, 5.0):
        places = encoding.units_of([{"width": width, "rate": share * 0.3 / width} for width in (32, 64, 128)])
        seen = encoding.features(places)[:, -1]
        assert seen.tolist() == pytest.approx([0.5 + math.log(share) / math.log(1000)] * 3)


class Lawless(Encoding):
    """A space as a cube as it was before there were laws (hpo/encoding.py at d841642): only `unit`, `value`, `features`."""

    def units(self, parameters: Mapping[str, Value]) -> Array:
        pairs = zip(self._axes, self._space.parameters, strict=True)
        return np.array([axis.unit(parameters[one.name]) if one.name in parameters else 0.5 for axis, one in pairs])

    def parameters(self, units_P: Array) -> dict[str, Value]:  # noqa: N803
        return self._space.fill(lambda one: self._axes[self._place[one.name]].value(units_P[self._place[one.name]]))

    def features(self, snapped_NP: Array) -> Array:  # noqa: N803
        columns: list[Array] = []
        for index, active in enumerate(self._active(snapped_NP)):
            part = self._axes[index].features(snapped_NP[:, index])
            if active is not None:
                part = np.column_stack([np.where(active[:, None], part, 0.5), active.astype(np.float64)])
            columns.append(part)
        return np.column_stack(columns)


def suggestions(space: Space) -> list[dict[str, Value]]:
    """What a search of twelve trials asks for, four of them without a model."""
    suggester, observed = ModelBased(space, Direction.MINIMIZE, 3), Observed(Direction.MINIMIZE)
    found = []
    for number in range(12):
        found.append(suggester.suggest(number, observed, lambda values: True))
        observed.began(number, found[-1])
        loss = abs(math.log10(float(str(found[-1]["rate"]))) + 2.2) + (found[-1]["kind"] == "sgd")
        for progress in (100, 300, 900)[: 1 + number % 3]:
            observed.measured(number, progress, loss + 10 / progress, 900)
        observed.ended(
            number, Ending.COMPLETE if number % 3 == 2 else Ending.STOPPED, loss if number % 3 == 2 else None
        )
    return found


def test_without_a_law_every_suggestion_is_what_it_was_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    momentum = Parameter("momentum", FloatRange(1e-3, 1.0, log=True), {"kind": ("sgd",)})
    lawless = Space((Parameter("kind", Choices(("adamw", "sgd"))), momentum, WIDTHS, Parameter("rate", RANGE)))
    now = suggestions(lawless)
    monkeypatch.setattr("hpo.encoding.Encoding", Lawless)
    assert now == suggestions(lawless)
    low, span = math.log(1e-4), math.log(1e-1) - math.log(1e-4)
    for unit in (0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0):
        rate = Encoding(lawless).parameters(np.array([0.0, 0.5, 0.5, unit]))["rate"]
        assert rate == min(max(math.exp(low + unit * span), 1e-4), 1e-1)


def test_the_first_suggestion_is_what_the_law_says() -> None:
    observed = Observed(Direction.MINIMIZE)
    observed.began(0, {"width": 32, "rate": 1e-3})
    found = ModelBased(space(falls), Direction.MINIMIZE, 0).suggest(1, observed, lambda values: True)
    assert found == {"width": 64, "rate": pytest.approx(0.3 / 64)}


def test_a_law_that_others_read_comes_before_theirs() -> None:
    planned = plan(SWEEP, Path("sweep.yaml"))
    assert planned.space.names == ("model.width", "learning_rate", "weight_decay")
    decay = planned.space.parameters[-1].centre
    assert decay is not None
    one, two = (decay({"model.width": 64, "learning_rate": rate}) for rate in (1e-3, 2e-3))
    assert one / two == pytest.approx(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("law: step law", "law: steplaw"), "5: space.learning_rate.law: no such law of learning_rate, got 'steplaw'. Did you mean 'step law'?"),
        (("log: true, law: step law", "law: step law"), "5: space.learning_rate.law: a law centres a log range"),
        (("model.width: [32, 64, 128]", "model.width: {choices: [32, 64], law: step law}"), "6: space.model.width.law: belongs to a range"),
        (("law: step law", "law: 3"), "5: space.learning_rate.law: requires the name of a law, got 3."),
        (("tokens: 200_000", "tokens: 200_000\n  tuning: lora"), "law: no law was fitted for fine-tuning (tuning: lora); leave `law` out."),
        (("baseline:", "search: {sampler: tpe}\nbaseline:"), "space.learning_rate.law: requires `sampler: auto`"),
        (("models.language_modelling", "models.classification"), "no law was fitted for models.classification"),
    ],
)  # fmt: skip
def test_each_mistake_with_a_law_is_one_line_with_its_place(change: tuple[str, str], message: str) -> None:
    assert message in refused(SWEEP.replace(*change))


def test_a_law_outside_the_range_is_a_caution() -> None:
    planned = plan(SWEEP.replace("high: 1e-1", "high: 1e-2"), Path("sweep.yaml"))
    assert any("step law says" in text and "there it centres nothing" in text for text in planned.warnings)
    assert plan(SWEEP, Path("sweep.yaml")).warnings == ()


def test_what_auto_stands_for_names_the_settings_with_a_law() -> None:
    sampler = plan(SWEEP, Path("sweep.yaml")).reasons[0]
    assert "the middle of the space (what the laws of learning_rate and weight_decay say)" in sampler
    plain = SWEEP.replace(", law: step law", "").replace(", law: adamw timescale", "")
    assert "laws" not in plan(plain, Path("sweep.yaml")).reasons[0]
