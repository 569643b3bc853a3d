"""The search and its study: exactly the asked trials, resumed from any point, the same again with the same seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from hpo.folder import StudyFolder, size
from hpo.journal import History, Journal
from hpo.keeping import Keeper
from hpo.launch import Finished, Happening
from hpo.launch.inline import Inline
from hpo.objective import Objective
from hpo.plan import Plan
from hpo.search import RepeatedFailure, Search
from hpo.study import Study, plan
from hpo.sweep import SAMPLERS
from hpo.trials import Direction, Ended, Ending, Event, Interrupted, Measurement, Outcome, Progressed, Started

Write = Callable[..., Path]


class Bench:
    """A plan searched inline, in a folder that keeps what happened."""

    def __init__(self, planned: Plan, root: Path) -> None:
        self.planned = planned
        self.folder = StudyFolder(root)
        root.mkdir(parents=True, exist_ok=True)
        self._time = 0.0

    def _clock(self) -> float:
        self._time += 1.0
        return self._time

    @property
    def history(self) -> History:
        return History.read(self.folder.journal)

    def search(
        self,
        trials: int | None = None,
        leave: Callable[[], bool] = lambda: False,
        checkpoint_bytes: int | None = None,
    ) -> Search:
        history = self.history
        study = Study(self.planned, self.folder, history, 1)
        asked = self.planned.sweep.search.trials if trials is None else trials
        journal = Journal(self.folder.journal, self._clock)
        launcher = Inline(self.planned.objective)
        return Search(study, launcher, journal, self.folder, history, asked, leave, checkpoint_bytes=checkpoint_bytes)

    def events(self, trials: int | None = None, leave: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        search = self.search(trials, leave)
        with search.journal:
            yield from search.events()

    def run(self, trials: int | None = None) -> list[Event]:
        return list(self.events(trials))

    def optuna_trials(self) -> list[optuna.trial.FrozenTrial]:
        return Study(self.planned, self.folder, self.history, 1).mirror.trials


@pytest.fixture
def bench(write_sweep: Write, workplace: Path) -> Callable[..., Bench]:
    def make(*changes: tuple[str, str], name: str = "study") -> Bench:
        path = write_sweep(*changes)
        return Bench(plan(path.read_text(), path), workplace / name)

    return make


def what_happened(history: History) -> list[tuple[object, ...]]:
    return [
        (t.number, t.state, t.value, tuple(t.parameters.items()), tuple(m.progress for m in t.measurements))
        for t in history.trials.values()
    ]


def test_trial_0_is_the_baseline_and_is_never_stopped(bench: Callable[..., Bench]) -> None:
    study = bench(("  seed: 3", "  pruner: {name: threshold, upper: 0.0}"))  # would stop everything
    study.run()
    baseline, *others = study.history.trials.values()
    assert baseline.parameters == {"learning_rate": 1e-4, "model.dropout": 0.1}
    assert baseline.ending is Ending.COMPLETE
    assert {trial.ending for trial in others} == {Ending.STOPPED}


def test_known_configurations_follow_the_baseline(bench: Callable[..., Bench]) -> None:
    study = bench(("track: {}", "start_with: [{learning_rate: 2e-3}, {learning_rate: 5e-3, model.dropout: 0.3}]"))
    study.run(3)
    assert [t.parameters for t in study.history.trials.values()][1:] == [
        {"learning_rate": 2e-3, "model.dropout": 0.1},
        {"learning_rate": 5e-3, "model.dropout": 0.3},
    ]


@pytest.mark.parametrize("sampler", [*SAMPLERS, "optuna.samplers:NSGAIISampler"])
def test_each_sampler_runs_exactly_the_asked_trials(bench: Callable[..., Bench], sampler: str) -> None:
    changes = [("  seed: 3", f"  sampler: {sampler}")]
    if sampler == "grid":
        changes.append(("{low: 1e-5, high: 1e-1, log: true}", "[1e-4, 1e-3, 3e-3]"))
    if sampler == "gp":
        changes.append(("trials: 6", "trials: 4"))
    study = bench(*changes)
    study.run()
    asked = study.planned.sweep.search.trials
    assert [t.number for t in study.history.ended] == list(range(asked))
    assert len({tuple(t.parameters.items()) for t in study.history.ended}) == asked


def test_a_grid_ends_when_it_is_covered(bench: Callable[..., Bench]) -> None:
    study = bench(
        ("  seed: 3", "  sampler: grid"), ("trials: 6", "trials: 100"),
        ("{low: 1e-5, high: 1e-1, log: true}", "[1e-4, 1e-3]"), ("{low: 0, high: 0.5, step: 0.1}", "[0.1, 0.2]"),
    )  # fmt: skip
    study.run()
    assert sorted(tuple(t.parameters.values()) for t in study.history.ended) == [
        (1e-4, 0.1), (1e-4, 0.2), (1e-3, 0.1), (1e-3, 0.2),
    ]  # fmt: skip


def test_two_studies_with_one_seed_are_equal_and_another_seed_differs(bench: Callable[..., Bench]) -> None:
    one, again = bench(("trials: 6", "trials: 14"), name="one"), bench(("trials: 6", "trials: 14"), name="again")
    other = bench(("trials: 6", "trials: 14"), ("seed: 3", "seed: 4"), name="other")
    for study in (one, again, other):
        study.run()
    assert what_happened(one.history) == what_happened(again.history)
    assert what_happened(one.history)[1:] != what_happened(other.history)[1:]


@pytest.mark.parametrize("pruner", ["median", "successive halving"])
@pytest.mark.parametrize("after", [1, 2, 3, 7, 12, 23, 30])
def test_a_study_cut_anywhere_and_resumed_equals_one_that_was_not(
    bench: Callable[..., Bench], after: int, pruner: str
) -> None:
    """The coordinator dies right after an event reached the journal: nothing is lost, nothing is run twice."""
    changes = (("trials: 6", "trials: 12"), ("seed: 3", f"seed: 3\n  pruner: {pruner}\n  rungs: [1/9, 1/3, 1.0]"))
    whole, cut = bench(*changes, name="whole"), bench(*changes, name="cut")
    whole.run()
    events = cut.events()
    for _ in range(after):
        next(events)
    events.close()
    cut.run()
    assert what_happened(cut.history) == what_happened(whole.history)
    assert len(cut.optuna_trials()) == 12


@pytest.mark.parametrize("damage", ["lost", "torn", "behind"])
def test_optunas_store_is_brought_up_to_the_journal(bench: Callable[..., Bench], damage: str) -> None:
    # With a rule that stops: one that pauses ends what waits when a study is over, and an extended one begins after that.
    changes = (("trials: 6", "trials: 12"), ("seed: 3", "seed: 3\n  pruner: median"))
    whole, cut = bench(*changes, name="whole"), bench(*changes, name="cut")
    whole.run()
    cut.run(8)
    content = cut.folder.optuna.read_bytes()
    match damage:
        case "lost":
            cut.folder.optuna.unlink()
        case "torn":
            cut.folder.optuna.write_bytes(content[:-7])
        case "behind":
            cut.folder.optuna.write_bytes(b"".join(content.splitlines(keepends=True)[:-9]))
    cut.run(12)
    assert what_happened(cut.history) == what_happened(whole.history)
    stored = {t.number: (t.state.name, t.intermediate_values) for t in cut.optuna_trials()}
    assert stored == {t.number: (t.state.name, t.intermediate_values) for t in whole.optuna_trials()}


def test_a_trial_that_optuna_began_and_the_journal_never_heard_of_is_taken_up(bench: Callable[..., Bench]) -> None:
    study = bench()
    study.run(3)
    Study(study.planned, study.folder, study.history, 1).ask()  # and the coordinator dies
    study.run()
    assert [t.number for t in study.history.ended] == list(range(6))
    assert [t.number for t in study.optuna_trials()] == list(range(6))


def test_a_study_that_is_opened_again_knows_how_long_each_trial_takes(bench: Callable[..., Bench]) -> None:
    study = bench(("seed: 3", "seed: 3\n  sampler: {name: auto, cost_aware: true}\n  rungs: [1/9, 1/3, 1.0]"))
    search = study.search()
    with search.journal:
        list(search.events())
    assert isinstance(search.study, Study)
    live = [seen.pace for seen in search.study._observed.trials]
    again = [seen.pace for seen in Study(study.planned, study.folder, study.history, 1)._observed.trials]
    assert live == again
    assert all(pace is not None and pace > 0 for pace in live)


def test_a_study_that_is_opened_again_knows_that_trials_were_cut_short(bench: Callable[..., Bench]) -> None:
    """Those that waited and were taken up again have left no other trace of it."""
    rule = "pruner: {name: pausing halving, noise: 100.0}"  # all wait until there are three, and all go on
    study = bench(("seed: 3", f"seed: 3\n  {rule}\n  rungs: [1/9, 1/3, 1.0]"))
    study.run()
    assert {trial.state for trial in study.history.trials.values()} == {"complete"}
    assert any(trial.taken_up_at is not None for trial in study.history.trials.values())
    assert Study(study.planned, study.folder, study.history, 1)._observed.cut_short


def test_leaving_sets_trials_aside_and_resuming_ends_with_the_asked_number(bench: Callable[..., Bench]) -> None:
    study = bench(("seed: 3", "seed: 3\n  pruner: median"))
    measured = 0

    def leave() -> bool:
        return measured >= 4

    for event in study.events(leave=leave):
        measured += isinstance(event, Progressed)
    assert [t.state for t in study.history.unfinished] == ["interrupted"]
    started = [event for event in study.run() if isinstance(event, Started)]
    assert started[0].resumed
    assert [t.number for t in study.history.ended] == list(range(6))
    assert all(t.attempts == (2 if t.number == started[0].assignment.number else 1) for t in study.history.ended)


PAUSING = (("trials: 6", "trials: 12"), ("seed: 3", "seed: 3\n  pruner: pausing halving\n  rungs: [1/9, 1/3, 1.0]"))


@pytest.mark.parametrize("after", [2, 8, 17, 21])
def test_a_study_with_paused_trials_that_is_left_goes_on_as_it_would_have(
    bench: Callable[..., Bench], after: int
) -> None:
    whole, cut = bench(*PAUSING, name="whole"), bench(*PAUSING, name="cut")
    whole.run()
    measured: list[Event] = []
    leaving = cut.events(leave=lambda: len(measured) >= after)
    for event in leaving:
        if isinstance(event, Progressed):
            measured.append(event)
    cut.run()
    assert what_happened(cut.history) == what_happened(whole.history)
    assert {trial.ending for trial in whole.history.ended} == {Ending.COMPLETE, Ending.STOPPED}


def test_trials_are_paused_taken_up_again_and_given_up_at_the_end(bench: Callable[..., Bench]) -> None:
    study = bench(*PAUSING)
    events = study.run()
    paused = [event.number for event in events if isinstance(event, Interrupted) and event.paused]
    resumed = [event.assignment.number for event in events if isinstance(event, Started) and event.resumed]
    assert resumed
    assert set(resumed) < set(paused)
    given_up = [t for t in study.history.ended if "not taken up again" in t.reason]
    assert {t.number for t in given_up} == set(paused) - {t.number for t in study.history.ended if t not in given_up}
    assert len(study.history.ended) == 12
    assert not study.history.unfinished
    assert [t.state.name for t in study.optuna_trials()].count("RUNNING") == 0


class Dying(Inline):
    """Each trial is killed the first time that it is told not to go on, as it writes its checkpoint."""

    def __init__(self, objective: Objective, dead: set[int]) -> None:
        super().__init__(objective)
        self._dead, self._told = dead, False

    def answer(self, number: int, *, go_on: bool) -> None:
        self._told = not go_on
        super().answer(number, go_on=go_on)

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        for happened in super().wait(timeout):
            if isinstance(happened, Finished) and self._told and happened.number not in self._dead:
                self._dead.add(happened.number)
                happened = dataclasses.replace(happened, outcome=Outcome(Ending.KILLED, "killed by SIGKILL"))
            yield happened


@pytest.mark.parametrize("until", [4, 11, None])
def test_a_trial_that_dies_as_it_is_set_aside_is_set_aside(bench: Callable[..., Bench], until: int | None) -> None:
    whole, disturbed = bench(*PAUSING, name="whole"), bench(*PAUSING, name="disturbed")
    whole.run()
    dead: set[int] = set()
    for stop in [None] if until is None else [until, None]:
        search = disturbed.search(leave=lambda stop=stop: stop is not None and len(dead) >= stop)
        search.launcher = Dying(disturbed.planned.objective, dead)
        with search.journal:
            list(search.events())
    setbacks = {trial.number: len(trial.setbacks) for trial in disturbed.history.ended}
    assert {number for number, count in setbacks.items() if count} == dead
    assert set(setbacks.values()) == {0, 1}
    assert what_happened(disturbed.history) == what_happened(whole.history)


def test_a_trial_that_was_paused_and_taken_up_again_is_as_one_that_never_was(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    study = bench(*PAUSING)
    study.run()
    resumed = [trial for trial in study.history.ended if trial.attempts > 1]
    assert resumed
    objective = study.planned.objective
    for trial in resumed:
        directory = tmp_path / str(trial.number)
        directory.mkdir()
        whole = objective.train(
            objective.config(trial.settings), seed=trial.seed, rungs=[100, 300, 900], directory=directory
        )
        alone = [(m.progress, dict(m.metrics)) for m in whole][: len(trial.measurements)]
        assert [(m.progress, dict(m.metrics)) for m in trial.measurements] == alone


def test_checkpoints_of_paused_trials_stay_under_their_cap(bench: Callable[..., Bench]) -> None:
    """200 trials, each with 1,000 bytes of checkpoint while it waits, and a cap of 6,000."""
    study = bench(("trials: 6", "trials: 200"), *PAUSING[1:])
    history = study.history
    search, most = study.search(200, checkpoint_bytes=6000), 0
    keeper = Keeper(study.folder, Direction.MINIMIZE, "best", history)
    with search.journal:
        for event in search.events():
            if isinstance(event, Started) and not event.resumed:
                (study.folder.trial(event.assignment.number) / "weights").write_bytes(bytes(1000))
            if isinstance(event, Ended):
                keeper.hear(event)
            waiting = [study.folder.trial(t.number) for t in study.history.trials.values() if t.paused]
            most = max(most, sum(size(folder) for folder in waiting))
    assert len(study.history.ended) == 200
    assert 4000 < most <= 6000 + 1500  # one more is measured as it is put down, before another is given up
    best = min(t.value for t in study.history.ended if t.ending is Ending.COMPLETE)
    assert best == min(t.value for t in study.history.ended if t.value is not None)


def test_a_seed_among_the_samplers_options_does_not_make_all_trials_the_same(bench: Callable[..., Bench]) -> None:
    study = bench(("  seed: 3", "  sampler: {name: random, seed: 3}"))
    study.run()
    assert len({tuple(t.parameters.items()) for t in study.history.ended}) == 6


def test_a_resumed_trial_is_not_judged_again_at_a_rung_it_has_passed(bench: Callable[..., Bench]) -> None:
    study = bench(("seed: 3", "seed: 3\n  pruner: successive halving\n  rungs: [1/9, 1/3, 1.0]"))
    history = study.history
    searched = Study(study.planned, study.folder, history, 1)
    first, later = searched.ask(), searched.ask()
    first = dataclasses.replace(first, protected=False)
    assert searched.report(first, Measurement(100, {"validation/loss": 5.0})) is None
    assert searched.report(first, Measurement(300, {"validation/loss": 5.0})) is None
    assert searched.report(later, Measurement(100, {"validation/loss": 1.0})) is None
    assert searched.report(first, Measurement(100, {"validation/loss": 5.0})) is None


def test_a_finished_study_can_be_extended(bench: Callable[..., Bench]) -> None:
    study = bench()
    study.run()
    assert study.run() == []
    study.run(9)
    assert [t.number for t in study.history.ended] == list(range(9))


@pytest.mark.parametrize(
    ("how", "ending", "told"),
    [("nan", Ending.DIVERGED, "PRUNED"), ("raise", Ending.FAILED, "FAIL"), ("memory", Ending.OUT_OF_MEMORY, "PRUNED")],
)
def test_each_ending_has_its_name_and_its_place_in_optuna(
    bench: Callable[..., Bench], how: str, ending: Ending, told: str
) -> None:
    study = bench(
        ("  tokens: 900", f"  misbehave: {how}\n  misbehave_above: 1e-3"),
        ("track: {}", "start_with: [{learning_rate: 1e-2}]"),
    )
    study.run(3)
    bad = study.history.trials[1]
    assert bad.ending is ending
    assert bad.value is None
    assert bad.reason
    assert study.optuna_trials()[1].state.name == told


def test_a_metric_that_is_not_measured_is_a_failure_that_names_what_was(bench: Callable[..., Bench]) -> None:
    study = bench(("  tokens: 900", "  misbehave: metric\n  misbehave_above: 0"))
    with pytest.raises(RepeatedFailure):
        study.run()
    assert study.history.trials[0].reason == (
        "the objective measured seed, validation/other, not the metric validation/loss"
    )


def test_trials_that_all_fail_alike_stop_the_study(bench: Callable[..., Bench]) -> None:
    study = bench(("  tokens: 900", "  misbehave: raise\n  misbehave_above: 0"), ("trials: 6", "trials: 50"))
    with pytest.raises(RepeatedFailure, match="3 trials in a row failed alike: RuntimeError: this configuration"):
        study.run()
    assert len(study.history.ended) == 3


def test_a_conditional_setting_is_sampled_only_where_it_counts(bench: Callable[..., Bench]) -> None:
    study = bench(
        ("  model.dropout: {low: 0, high: 0.5, step: 0.1}",
         "  optimizer: [adamw, sgd]\n  momentum: {low: 0, high: 0.99, when: {optimizer: sgd}}"),
        ("trials: 6", "trials: 25"),
    )  # fmt: skip
    study.run()
    chosen = [t.parameters for t in study.history.ended]
    assert {("momentum" in values) == (values["optimizer"] == "sgd") for values in chosen} == {True}
    assert {values["optimizer"] for values in chosen} == {"adamw", "sgd"}


def test_every_event_is_in_the_journal_before_it_is_told(bench: Callable[..., Bench]) -> None:
    study = bench()
    for event in study.events():
        history = study.history
        match event:
            case Started(assignment):
                assert assignment.number in history.trials
            case Progressed(number, measurement):
                assert history.trials[number].progress == measurement.progress
            case Ended(number, outcome):
                assert history.trials[number].ending is outcome.ending


def test_the_search_finds_a_better_configuration_than_the_baseline(bench: Callable[..., Bench]) -> None:
    study = bench(("trials: 6", "trials: 20"))
    study.run()
    complete = {t.number: t.value for t in study.history.ended if t.ending is Ending.COMPLETE}
    assert min(complete.values()) < complete[0] - 0.5  # type: ignore[type-var,operator]


def test_no_optuna_lock_is_left_behind(bench: Callable[..., Bench]) -> None:
    study = bench()
    study.run(2)
    assert [path.name for path in study.folder.root.iterdir() if "lock" in path.name] == []
