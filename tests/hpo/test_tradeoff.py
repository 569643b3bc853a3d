"""Searches of several metrics: the front is found, kept, resumed and shown; without a trade-off nothing changes."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
import statistics
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from hpo import pareto
from hpo.folder import StudyRecord
from hpo.fronts import FrontHalving
from hpo.halving import Look
from hpo.journal import History, encode
from hpo.live import Scoreboard
from hpo.observations import Observed, Seen
from hpo.parego import Weighed
from hpo.replay.simulation import replay
from hpo.replay.tables import Point, Row, Table
from hpo.report import study_json, study_view
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.study import Study, plan
from hpo.suggesting import ModelBased
from hpo.summary import Summary
from hpo.sweep import Search, Strategy
from hpo.tradeoff import Tradeoff
from hpo.trials import Assignment, Direction, Ended, Ending, Measurement, Metric, Outcome, Progressed, Started, Value

LOSS = Metric("loss", Direction.MINIMIZE)
SPEED = Metric("speed", Direction.MAXIMIZE)
SPACE = Space(
    (
        Parameter("rate", FloatRange(1e-5, 1e-1, log=True)),
        Parameter("width", IntRange(16, 1024, log=True)),
        Parameter("dropout", FloatRange(0.0, 0.5)),
    )
)


def surface(values: Mapping[str, Value]) -> tuple[float, float]:
    """A loss that falls with the width, whose best rate and dropout move with it; and the weights."""
    rate, width, dropout = (float(values[name]) for name in ("rate", "width", "dropout"))  # type: ignore[arg-type]
    size = 12 * width**2
    loss = 2 + 30 * size**-0.25 + 0.4 * (math.log10(rate) + 2 + 0.5 * math.log10(width / 16)) ** 2
    return loss + 2 * (dropout - math.log10(size) / 60) ** 2, size


def told(observed: Observed, number: int, values: Mapping[str, Value]) -> tuple[float, float]:
    loss, size = surface(values)
    observed.began(number, values)
    for progress in (100, 300, 900):
        observed.measured(number, progress, loss + 100 / progress, 900, (loss + 100 / progress, size))
    observed.ended(number, Ending.COMPLETE, loss + 1 / 9)
    return loss, math.log10(size)


def found(seed: int, *, model: bool) -> float:
    """The volume that 24 trials dominate."""
    observed, generator = Observed(Direction.MINIMIZE), random.Random(seed)
    suggester = ModelBased(SPACE, Direction.MINIMIZE, seed, weighs=True)
    points = []
    for number in range(24):
        values = suggester.suggest(number, observed, lambda values: True) if model else SPACE.draw(generator)
        points.append(told(observed, number, values))
    return pareto.hypervolume(points, (5.0, 7.2))


def test_it_finds_more_of_a_front_than_chance_with_as_many_trials() -> None:
    ours = statistics.fmean(found(seed, model=True) for seed in range(8))
    chance = statistics.fmean(found(seed, model=False) for seed in range(8))
    assert ours > 1.025 * chance  # 1.039 as measured


@pytest.mark.parametrize("direction", Direction)
def test_without_a_tradeoff_points_change_no_suggestion(direction: Direction) -> None:
    plain, other = Observed(direction), Observed(direction)
    for number in range(10):
        values = SPACE.draw(random.Random(number))
        loss, _ = surface(values)
        for observed in (plain, other):
            observed.began(number, values)
            observed.measured(number, 900, loss, 900, (loss, 1.0) if observed is other else None)
            observed.ended(number, Ending.COMPLETE, loss)
    one, two = (
        ModelBased(SPACE, direction, 4).suggest(10, observed, lambda values: True) for observed in (plain, other)
    )
    assert one == two
    assert ModelBased(SPACE, direction, 4, weighs=True).suggest(10, other, lambda values: True) != one


def weighed_anew(observed: Observed, levels: tuple[float, ...], seed: int, number: int) -> Observed:
    """The same trials, each measurement as one value: all of them, from nothing."""

    def level(seen: Seen, progress: int) -> int:
        return min(range(len(levels)), key=lambda one: abs(math.log(seen.share(progress) / levels[one])))

    last: dict[int, list[pareto.Point]] = {}
    for seen in observed.trials:
        here = {level(seen, progress): point for (progress, _), point in zip(seen.curve, seen.points, strict=True)}
        for one, point in here.items():
            last.setdefault(one, []).append(point)

    def rank(value: float, among: list[float]) -> float:
        below, equal = sum(one < value for one in among), sum(one == value for one in among)
        return (2 * below + equal - 1) / max(1, len(among) - 1)

    told = Observed(Direction.MINIMIZE)
    for place, seen in enumerate(observed.trials):
        told.began(place, seen.parameters)
        value = None
        for (progress, _), point in zip(seen.curve, seen.points, strict=True):
            axes = [list(axis) for axis in zip(*last[level(seen, progress)], strict=True)]
            ranks = tuple(rank(one, axis) for one, axis in zip(point, axes, strict=True))
            value = pareto.tchebycheff(ranks, pareto.weights(len(point), seed, number))
            told.measured(place, progress, value, seen.length)
        if seen.waits:
            told.set_aside(place)
        elif seen.ending is not None:
            told.ended(place, seen.ending, None if seen.value is None else value)
    return told


@pytest.mark.parametrize("metrics", [2, 3])
@pytest.mark.parametrize("length", [900, None])
@pytest.mark.parametrize("seed", range(4))
def test_weighing_what_a_model_is_made_of_is_weighing_all_and_choosing(
    metrics: int, length: int | None, seed: int
) -> None:
    levels, bounds = (1 / 9, 1 / 3, 1.0), (20, 8, 5, 77)
    generator, observed = random.Random(seed), Observed(Direction.MAXIMIZE)
    weighed = Weighed(observed, levels, seed)

    def values() -> pareto.Point:
        return tuple(generator.choice((0.5, generator.random())) for _ in range(metrics))

    goes_on: dict[int, int] = {}  # how often each trial that has not ended has measured
    compared = 0
    for number in range(60):
        observed.began(number, {"rate": number})
        goes_on[number] = 0
        for other in generator.sample(sorted(goes_on), min(len(goes_on), 6)):
            observed.taken_up(other)
            if goes_on[other] < 3:
                progress = (100, 300, 900)[goes_on[other]]
                observed.measured(other, progress, generator.random(), length, values())
                goes_on[other] += 1
            fate = generator.random()
            if fate < 0.5:
                observed.set_aside(other)
            elif fate < 0.8:
                ending = Ending.COMPLETE if goes_on[other] == 3 else generator.choice(list(Ending)[1:])
                observed.ended(other, ending, 1.0 if ending is Ending.COMPLETE else None)
                del goes_on[other]
        if any(seen.points for seen in observed.trials):
            compared += 1
            plain = weighed_anew(observed, levels, seed, number).chosen(*bounds)
            assert weighed.chosen(number, *bounds) == [dataclasses.replace(seen, points=[]) for seen in plain]
    assert compared > 50


def table(seed: int, count: int = 40) -> Table:
    """Trials that keep their places in both metrics from the first measurement on."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        loss, speed = generator.random(), generator.random()
        points = tuple(Point(at, loss + 5 / at, float(at), {"speed": speed}) for at in range(1, 28))
        rows.append(Row({"which": number}, points, number=number))
    space = Space((Parameter("which", Choices(tuple(range(count)))),))
    return Table("noise-free", space, LOSS, tuple(rows), 27, others=(SPEED,))


@pytest.mark.parametrize("slots", [1, 5])
@pytest.mark.parametrize("seed", range(10))
def test_the_front_of_a_table_is_trained_in_full_and_most_others_are_not(seed: int, slots: int) -> None:
    made = table(seed)
    shares = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
    search = Search(trials=len(made.rows), sampler=Strategy("grid"), pruner=Strategy("pausing halving"), rungs=shares)
    # In the table's own order, so that a trial's number is its row.
    seen = replay(made, Study(made.asked_by(search), None, History(), 1), count=len(made.rows), slots=slots)
    points = [(row.points[-1].value, -row.points[-1].others["speed"]) for row in made.rows]
    trained = {step.number for step in seen.steps}
    assert set(pareto.front(points)) <= trained
    assert len(trained) < len(made.rows) / 2


def test_a_small_model_that_is_worse_in_quality_alone_goes_on() -> None:
    rule = FrontHalving(Direction.MINIMIZE, (Fraction(1, 9), Fraction(1)))
    sizes = {0: 1.0, 1: 9.0, 2: 9.5, 3: 9.9, 4: 9.8, 5: 9.7}
    for number, size in sizes.items():
        loss = 9.0 if number == 0 else float(number)
        rule.judge(Look(number, 3, loss, 27, (loss, size)), lambda: False)
        rule.set_aside(number)
    assert [rule.revive(last=False) for _ in range(3)] == [1, 0, None]


def test_a_point_is_of_one_measurement() -> None:
    curve = [Measurement(1, {"loss": 2.0, "speed": 5.0}), Measurement(2, {"loss": 3.0, "speed": 7.0})]
    best = dataclasses.replace(LOSS, at="best")
    assert Tradeoff(LOSS, (SPEED,)).point(curve) == (3.0, -7.0)
    assert Tradeoff(best, (SPEED,)).point(curve) == (2.0, -5.0)
    assert Tradeoff(LOSS).point(curve) is None
    assert Tradeoff(LOSS, (SPEED,)).point([Measurement(1, {"loss": 2.0})]) is None


def test_a_trial_that_lacks_a_metric_of_the_tradeoff_fails() -> None:
    tradeoff = Tradeoff(LOSS, (SPEED,))
    missing = tradeoff.trouble(Measurement(1, {"loss": 2.0}))
    infinite = tradeoff.trouble(Measurement(1, {"loss": 2.0, "speed": math.inf}))
    assert missing is not None
    assert missing.ending is Ending.FAILED
    assert infinite is not None
    assert infinite.ending is Ending.DIVERGED
    assert tradeoff.trouble(Measurement(1, {"loss": 2.0, "speed": 1.0})) is None


def test_check_says_what_auto_stands_for(write_sweep: Callable[..., Path]) -> None:
    path = write_sweep(("track: {}", "tradeoff: [{name: validation/accuracy, direction: maximize}]"))
    planned = plan(path.read_text(), path)
    assert planned.search.pruner.name == "pausing halving"
    assert ["ParEGO" in planned.reasons[0], "front" in planned.reasons[1]] == [True, True]


@pytest.mark.parametrize("after", [9, 15, 22])
def test_a_resumed_study_suggests_what_one_that_was_not_cut_does(after: int, write_sweep: Callable[..., Path]) -> None:
    path = write_sweep(("track: {}", "tradeoff: [{name: seed, direction: minimize}]"), ("trials: 6", "trials: 12"))
    objective = path.with_name("objective.py")
    text = objective.read_text().replace('"validation/accuracy")', '"validation/accuracy", "seed")')
    objective.write_text(text.replace("float(seed)", "config.model.dropout"))
    planned = plan(path.read_text(), path)

    def events(history: History) -> list[str]:
        study, lines = Study(planned, None, History(), 1), []
        for number in range(12):
            given = study.ask()
            lines.append(json.dumps([number, dict(given.parameters)]))
            value = abs(math.log10(float(given.parameters["learning_rate"]) / 3e-3))  # type: ignore[arg-type]
            metrics = {"validation/loss": value, "seed": float(given.parameters["model.dropout"])}  # type: ignore[arg-type]
            happened = [
                Started(given, 0), Progressed(number, Measurement(900, metrics), 1.0, 900),
                Ended(number, Outcome(Ending.COMPLETE), 1.0, value),
            ]  # fmt: skip
            for event in happened:
                history.add(json.loads(encode(event, 1.0)))
            study.report(given, Measurement(900, metrics), length=900)
            study.tell(number, Outcome(Ending.COMPLETE))
            if number == after // 3:
                study = Study(planned, None, history, 1)
        return lines

    assert events(History()) == _uncut(planned)


def _uncut(planned: object) -> list[str]:
    study, lines = Study(planned, None, History(), 1), []  # type: ignore[arg-type]
    for number in range(12):
        given = study.ask()
        lines.append(json.dumps([number, dict(given.parameters)]))
        value = abs(math.log10(float(given.parameters["learning_rate"]) / 3e-3))  # type: ignore[arg-type]
        metrics = {"validation/loss": value, "seed": float(given.parameters["model.dropout"])}  # type: ignore[arg-type]
        study.report(given, Measurement(900, metrics), length=900)
        study.tell(number, Outcome(Ending.COMPLETE))
    return lines


RECORD = StudyRecord(
    name="s", id="i", created=0.0, sweep_name="s", origin="s.yaml", assignments=[], objective="m:train",
    metric={"name": "loss", "direction": "minimize", "at": "last"},
    search={"sampler": "auto", "pruner": "none", "trials": 4, "seed": 0, "rungs": []},
    fixed={}, space={"lr": "0 to 1", "depth": "2"}, facts={}, versions={}, mlflow=None,
    tradeoff=[{"name": "speed", "direction": "maximize"}],
)  # fmt: skip


def four() -> tuple[Summary, Scoreboard]:
    history, board = History(), Scoreboard(RECORD, History(), 4, 1, lambda: 0.0)
    for number, (loss, speed) in enumerate([(3.0, 1.0), (2.0, 1.0), (2.0, 5.0), (1.0, 0.5)]):
        values = {"lr": 0.1 * number, "depth": 2}
        for event in (
            Started(Assignment(number, values, values, 0, (), protected=number in (0, 2)), 0),
            Progressed(number, Measurement(9, {"loss": loss, "speed": speed}), 1.0, 9),
            Ended(number, Outcome(Ending.COMPLETE), 1.0, loss),
        ):
            history.add(json.loads(encode(event, 1.0)))
            board.add(event)
    return Summary(RECORD, history, live=False), board


def test_show_prints_the_front_and_what_it_is_worth() -> None:
    summary, board = four()
    console = Console(file=io.StringIO(), width=200)
    console.print(study_view(summary))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 of the 4 trials trained in full are on the front" in text
    assert "The baseline is beaten so by trials 1, 2." in text
    table = text[text.index("front  ") :].splitlines()
    assert [line.split() for line in table[:3]] == [
        ["front", "loss", "speed", "lr"],
        ["3", "1", "0.5", "0.3"],
        ["random", "2", "2", "5", "0.2"],
    ]
    content = study_json(summary)
    assert content["front"] == [3, 2]
    assert content["best"]["number"] == 3
    assert content["front_covers"] == pytest.approx(0.5)
    assert board.front == 2


def test_of_trials_level_in_the_metric_the_best_is_the_one_on_the_front() -> None:
    summary, _ = four()
    del summary.history.trials[3]
    assert summary.best is not None
    assert summary.best.number == 2
