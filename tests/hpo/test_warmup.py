"""While its learning rate warms up a trial is not compared, stopped or set aside; one that diverges ends at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hpo import cli, run, warming
from hpo.check import uncompared
from hpo.errors import UserError
from hpo.folder import StudyFolder
from hpo.halving import Ladder, Look
from hpo.journal import History, Journal
from hpo.launch.inline import Inline
from hpo.objective import load
from hpo.plan import Plan
from hpo.replay.recorded import study_table
from hpo.replay.simulation import replay
from hpo.run import conduct, create
from hpo.search import Search
from hpo.study import Study, plan
from hpo.sweep import Strategy
from hpo.trials import (
    Direction,
    Ending,
    Event,
    Measurement,
    Outcome,
    Paused,
    Progressed,
    Rung,
    Started,
    compared_at,
)

Write = Callable[..., Path]

THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
WARMUP = 180  # of the 900 tokens of a trial: beyond its rung at 100, before that at 300
LOSS = "validation/loss"


# -- rungs and rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rungs", "length", "warmup", "found"),
    [
        (THIRDS, 900, 0, [100, 300, 900]),
        (THIRDS, 900, 99, [100, 300, 900]),
        (THIRDS, 900, 100, [300, 900]),  # the first step at the peak is still to come
        (THIRDS, 900, 900, [900]),
        (THIRDS, 900, 5000, [900]),
        ((100, 300), None, 100, [300]),
    ],
)
def test_a_trial_is_compared_behind_its_warm_up_and_at_its_end(
    rungs: tuple[Rung, ...], length: int | None, warmup: int, found: list[int]
) -> None:
    assert compared_at(rungs, length, warmup) == found


def test_a_look_is_incomparable_up_to_the_end_of_the_warm_up_unless_it_is_the_last() -> None:
    looks = [Look(0, progress, 1.0, 900, warmup=warmup) for progress, warmup in ((100, 0), (179, 180), (180, 180))]
    looks += [Look(0, 181, 1.0, 900, warmup=180), Look(0, 900, 1.0, 900, warmup=900), Look(0, 5, 1.0, None, warmup=9)]
    assert [look.incomparable for look in looks] == [False, True, True, False, False, True]


def test_a_trial_that_measures_between_two_rungs_is_not_put_on_one_in_its_warm_up() -> None:
    ladder = Ladder(Direction.MINIMIZE, 3, THIRDS)
    assert ladder.place(Look(0, 200, 1.0, 900, warmup=90)) == (900, 200)  # on the rung at 100, with all it had there
    assert ladder.place(Look(1, 200, 1.0, 900, warmup=WARMUP)) is None
    assert ladder.place(Look(1, 300, 1.0, 900, warmup=WARMUP)) == (900, 300)


def test_a_trial_that_warms_up_to_its_end_is_on_the_last_rung() -> None:
    ladder = Ladder(Direction.MINIMIZE, 3, THIRDS)
    assert ladder.place(Look(0, 900, 1.0, 900, warmup=900)) == (900, 900)


# -- the door ---------------------------------------------------------------------------------------------


def objective(workplace: Path, warmup: str, train: str = "") -> None:
    """Write the objective with a warm-up, and perhaps another training."""
    path = workplace / "objective.py"
    path.write_text(f"{path.read_text()}\ndef warmup(config):\n    return {warmup}\n{train}")


def test_an_objective_that_says_nothing_has_no_warm_up(workplace: Path) -> None:
    loaded = load("objective.py:train", workplace)
    assert loaded.warmup(loaded.config({"learning_rate": 1e-3})) == 0


@pytest.mark.parametrize("said", ["0", "config.tokens // 5", "__import__('numpy').int64(180)"])
def test_a_warm_up_is_a_progress(workplace: Path, said: str) -> None:
    objective(workplace, said)
    loaded = load("objective.py:train", workplace)
    expected = 0 if said == "0" else 180
    assert loaded.warmup(loaded.config({"learning_rate": 1e-3})) == expected
    assert loaded.call("warmup", {"learning_rate": 1e-3}) == expected


@pytest.mark.parametrize("said", ["0.2", "-1", "None", "'180'"])
def test_a_warm_up_that_is_no_progress_is_refused_in_words(workplace: Path, said: str) -> None:
    objective(workplace, said)
    loaded = load("objective.py:train", workplace)
    for ask in (lambda: loaded.call("warmup", {"learning_rate": 1e-3}), lambda: loaded.warmup(None)):
        with pytest.raises(UserError, match=r"warmup\(\) of objective.py:train requires a progress .* got "):
            ask()


# -- a search ---------------------------------------------------------------------------------------------


class Bench:
    """A sweep searched inline, in a folder that keeps what happened."""

    def __init__(self, planned: Plan, root: Path) -> None:
        self.planned, self.folder = planned, StudyFolder(root)
        root.mkdir(parents=True, exist_ok=True)

    @property
    def history(self) -> History:
        return History.read(self.folder.journal)

    def study(self, *, kept: bool = True) -> Study:
        return Study(self.planned, self.folder if kept else None, self.history, 1)

    def events(self) -> Iterator[Event]:
        with Journal(self.folder.journal, lambda: 1.0) as journal:
            history = self.history
            trials = self.planned.search.trials
            launcher = Inline(self.planned.objective)
            study = Study(self.planned, self.folder, history, 1)
            yield from Search(study, launcher, journal, self.folder, history, trials, lambda: False).events()


@pytest.fixture
def bench(write_sweep: Write, workplace: Path) -> Callable[..., Bench]:
    def make(pruner: str, *changes: tuple[str, str], rungs: str = "[1/9, 1/3, 1.0]") -> Bench:
        search = f"  seed: 3\n  sampler: random\n  pruner: {pruner}\n  rungs: {rungs}"
        path = write_sweep(("  seed: 3", search), *changes)
        return Bench(plan(path.read_text(), path), workplace / "study")

    return make


STOPS_ALL = "{name: threshold, upper: 0.0}"  # one of Optuna's; a loss is above 0


def stopped_at(history: History) -> set[int]:
    return {trial.progress for trial in history.ended if trial.ending is Ending.STOPPED}


@pytest.mark.parametrize(
    "pruner", [STOPS_ALL, "successive halving", "pausing halving", "{name: best of rung, keep: 1}"]
)
def test_a_bad_trial_passes_a_rung_in_its_warm_up_and_ends_at_the_next(
    bench: Callable[..., Bench], workplace: Path, pruner: str
) -> None:
    more = ("trials: 6", "trials: 20")
    before = bench(pruner, more)
    list(before.events())
    assert 100 in stopped_at(before.history)  # as it is without a warm-up
    before.folder.root.rename(workplace / "before")

    objective(workplace, str(WARMUP))
    study = bench(pruner, more)
    list(study.events())
    assert len(study.history.ended) == 20
    assert stopped_at(study.history) == {300}
    for trial in study.history.trials.values():  # it measured in the warm-up all the same
        assert [m.progress for m in trial.measurements][:2] == [100, 300]


def test_a_trial_that_diverges_in_its_warm_up_ends_at_once(bench: Callable[..., Bench], workplace: Path) -> None:
    objective(workplace, str(WARMUP))
    study = bench("pausing halving", ("  tokens: 900", "  tokens: 900\n  misbehave: nan\n  misbehave_above: 1e-3"))
    list(study.events())
    diverged = [trial for trial in study.history.ended if trial.ending is Ending.DIVERGED]
    assert diverged
    assert {trial.progress for trial in diverged} == {100}
    assert all(trial.reason == f"{LOSS} is nan at 100" for trial in diverged)


OFTEN = """
def train(config: Config, *, seed):
    for progress in range(90, 901, 90):
        yield Measurement(progress, {"validation/loss": loss(config, progress)})
"""


@pytest.mark.parametrize(
    ("pruner", "first"),
    [(STOPS_ALL, 270), ("successive halving", 360)],  # beyond 180: the next measurement, the next rung (at 300)
)
def test_an_objective_that_measures_more_often_is_not_judged_in_its_warm_up(
    bench: Callable[..., Bench], workplace: Path, pruner: str, first: int
) -> None:
    objective(workplace, str(WARMUP), OFTEN)
    study = bench(pruner, ("trials: 6", "trials: 12"))
    list(study.events())
    assert stopped_at(study.history) == {first}


def test_the_sampler_and_optuna_are_shown_no_measurement_of_the_warm_up(
    bench: Callable[..., Bench], workplace: Path
) -> None:
    objective(workplace, str(WARMUP), OFTEN)
    study = bench("none", ("trials: 6", "trials: 2"))
    list(study.events())
    resumed = study.study()
    behind = list(range(270, 901, 90))
    for trial in resumed.mirror.trials:
        assert sorted(trial.intermediate_values) == behind
    assert [[at for at, _ in seen.curve] for seen in resumed._observed.trials] == [behind, behind]
    assert [len(trial.measurements) for trial in study.history.trials.values()] == [10, 10]


def test_a_journal_without_warm_up_is_as_it_was(bench: Callable[..., Bench], workplace: Path) -> None:
    study = bench("pausing halving")
    list(study.events())
    lines = [json.loads(line) for line in study.folder.journal.read_text().splitlines()]
    measured = [line for line in lines if line["event"] == "measured"]
    assert measured
    assert not any("warmup" in line for line in measured)


@pytest.mark.parametrize("rule", ["successive halving", "pausing halving"])
def test_a_resumed_study_and_one_that_hears_of_it_judge_alike(bench: Callable[..., Bench], rule: str) -> None:
    """Trials of other warm-ups: 0 and 2 are compared at 100, 1 is not, though it is the worst there."""
    study = bench(rule, rungs="[1/9, 1/3, 1.0]")
    here, there = study.study(kept=False), study.study(kept=False)
    assigned = [dataclasses.replace(here.ask(), protected=False) for _ in range(3)]
    warmups = [0, WARMUP, 0]
    with Journal(study.folder.journal, lambda: 1.0) as journal:
        for one, warmup, value in zip(assigned, warmups, [2.0, 9.0, 1.0], strict=True):
            events: list[Event] = [
                Started(one, 0),
                Progressed(one.number, Measurement(100, {LOSS: value}), 1.0, 900, warmup),
            ]
            for event in events:
                journal.append(event)
                there.hear(event)
            here.report(one, Measurement(100, {LOSS: value}), length=900, warmup=warmup, seconds=1.0)
    resumed = Study(study.planned, None, study.history, 1)
    ladders = [one._rule._ladder.rungs for one in (here, there, resumed)]  # type: ignore[attr-defined]
    assert ladders == [{(900, 100): {0: 2.0, 2: 1.0}}] * 3
    # What the first measurement behind the warm-up is compared with is the same too.
    verdicts = [
        one.report(assigned[1], Measurement(300, {LOSS: 9.0}), length=900, warmup=WARMUP)
        for one in (here, there, resumed)
    ]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert isinstance(verdicts[0], Paused) == (rule == "pausing halving")


@pytest.mark.parametrize(("warmup", "waits"), [(WARMUP, True), (0, False)])
def test_what_was_measured_in_the_warm_up_is_not_recalled_as_a_first_measurement(
    bench: Callable[..., Bench], warmup: int, waits: bool
) -> None:
    study = bench("best of rung")
    first = dataclasses.replace(study.study(kept=False).ask(), protected=False)
    with Journal(study.folder.journal, lambda: 1.0) as journal:
        journal.append(Started(first, 0))
        journal.append(Progressed(0, Measurement(100, {LOSS: 5.0}), 1.0, 900, warmup))
    resumed = Study(study.planned, None, study.history, 1)
    assert list(resumed.mirror.trials[0].intermediate_values) == ([] if waits else [100])
    verdict = resumed.report(first, Measurement(300, {LOSS: 5.0}), length=900, warmup=warmup)
    assert isinstance(verdict, Paused) == waits


@pytest.mark.parametrize(("warmup", "ending"), [(WARMUP, None), (0, Ending.STOPPED)])
def test_a_measurement_that_is_judged_once_more_after_a_resume_is_still_in_the_warm_up(
    bench: Callable[..., Bench], warmup: int, ending: Ending | None
) -> None:
    study = bench(STOPS_ALL)
    first = dataclasses.replace(study.study(kept=False).ask(), protected=False)
    with Journal(study.folder.journal, lambda: 1.0) as journal:
        journal.append(Started(first, 0))
        journal.append(Progressed(0, Measurement(100, {LOSS: 5.0}), 1.0, 900, warmup))
    resumed = Study(study.planned, None, study.history, 1)
    verdict = resumed.report(first, Measurement(100, {LOSS: 5.0}), length=900, warmup=warmup)
    assert (verdict.ending if isinstance(verdict, Outcome) else None) == ending


@pytest.mark.parametrize(("warmup", "first"), [(0, 100), (WARMUP, 300)])
def test_rules_that_count_from_the_first_rung_count_from_the_first_behind_the_warm_up(
    bench: Callable[..., Bench], workplace: Path, monkeypatch: pytest.MonkeyPatch, warmup: int, first: int
) -> None:
    objective(workplace, str(warmup))
    path = bench("hyperband", ("trials: 6", "trials: 1")).planned.sweep.path
    planned, folder = create(path, Path("studies"), "whole", [])
    counted: list[int] = []

    class Counted(Study):
        def __init__(self, question: Plan, folder: StudyFolder, history: History, first_rung: int) -> None:
            counted.append(first_rung)
            super().__init__(question, folder, history, first_rung)

    monkeypatch.setattr(run, "Study", Counted)
    conduct(planned, folder, console=Console(quiet=True), inline=True)
    assert counted == [first]


class Heard(Study):
    """Notes where trials are stopped."""

    def tell(self, number: int, outcome: Outcome) -> None:
        self.stops = getattr(self, "stops", set())
        self.stops |= {self._curves[number][-1].progress} if outcome.ending is Ending.STOPPED else set()
        super().tell(number, outcome)


@pytest.mark.parametrize(("warmup", "stops"), [(0, {100}), (WARMUP, {300})])
def test_a_replay_of_a_study_does_not_judge_in_the_warm_up_either(
    bench: Callable[..., Bench], workplace: Path, warmup: int, stops: set[int]
) -> None:
    objective(workplace, str(warmup))
    study = bench("none", ("trials: 6", "trials: 12"))
    list(study.events())
    table = study_table(study.folder, study.planned.space, study.planned.tradeoff, study.history)
    search = dataclasses.replace(study.planned.search, pruner=Strategy("successive halving"))
    asked = Heard(table.asked_by(search), None, History(), 1)
    replay(table, asked, count=12, slots=1)
    assert asked.stops == stops


# -- hpo check --------------------------------------------------------------------------------------------


NOTHING_STOPS = (
    "no rung but the end lies behind the baseline's warm-up: nothing can be stopped early. Shorten the warm-up, or set "
    "search.rungs to later ones."
)


@pytest.mark.parametrize(
    ("warmup", "rungs", "said"),
    [
        ("99", "[1/9, 1/3, 1.0]", []),
        (
            "config.tokens // 5",
            "[1/9, 1/3, 1.0]",
            [
                "the rung at 1/9 lies within the baseline's warm-up (the first 0.2 of its training): trials that warm up "
                "so are not compared there"
            ],
        ),
        (
            "450",
            "[100, 300, 900]",
            [
                "the rungs at 100, 300 lie within the baseline's warm-up (the first 0.5 of its training): trials that "
                "warm up so are not compared there",
                NOTHING_STOPS,
            ],
        ),
        ("900", "[1.0]", [NOTHING_STOPS][1:]),
    ],
)
def test_check_says_which_rungs_lie_in_the_warm_up(
    bench: Callable[..., Bench], workplace: Path, warmup: str, rungs: str, said: list[str]
) -> None:
    objective(workplace, warmup)
    assert uncompared(bench("pausing halving", rungs=rungs).planned) == said


def test_check_says_nothing_of_the_warm_up_where_nothing_is_stopped(
    bench: Callable[..., Bench], workplace: Path
) -> None:
    assert uncompared(bench("pausing halving").planned) == []
    objective(workplace, "450")
    assert uncompared(bench("none").planned) == []


def test_check_refuses_a_warm_up_that_is_no_progress_in_words(bench: Callable[..., Bench], workplace: Path) -> None:
    objective(workplace, "0.2")
    with pytest.raises(UserError, match="requires a progress"):
        uncompared(bench("pausing halving").planned)


@pytest.mark.parametrize("error", ["OSError('prepared.txt is missing')", "TypeError('int + None')"])
def test_check_goes_on_where_the_objective_cannot_say_before_it_prepared(
    bench: Callable[..., Bench], workplace: Path, error: str
) -> None:
    objective(workplace, f"(_ for _ in ()).throw({error})")
    (said,) = uncompared(bench("pausing halving").planned)
    assert said.startswith("which rungs lie within the warm-up is known when trials run (")
    assert error.partition("'")[2].rstrip("')") in said


def test_a_warm_start_learns_nothing_from_a_warm_up(bench: Callable[..., Bench], workplace: Path) -> None:
    objective(workplace, str(WARMUP))
    study = bench("none")
    list(study.events())
    assert any(m.progress <= WARMUP for trial in study.history.ended for m in trial.measurements)

    @dataclasses.dataclass
    class Record:
        name: str = "old"
        id: str = "i"
        facts: dict[str, str] = dataclasses.field(default_factory=dict)

    lessons = warming._Reader(study.planned, Record()).source(study.history).lessons  # type: ignore[arg-type]
    assert lessons
    assert all(progress > WARMUP for lesson in lessons for progress, _ in lesson.curve)


def test_the_command_says_it(bench: Callable[..., Bench], workplace: Path) -> None:
    objective(workplace, str(WARMUP))
    bench("pausing halving")
    shown = CliRunner().invoke(cli.app, ["check", "sweep.yaml"], env={"COLUMNS": "400"})
    assert shown.exit_code == 0, shown.output
    assert "note: the rung at 1/9 lies within the baseline's warm-up" in shown.output
    without = CliRunner().invoke(cli.app, ["check", "sweep.yaml", "--no-data"])
    assert "warm-up" not in without.output
