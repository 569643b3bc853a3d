"""What seeds of the baseline say of a result, and that none of them is ever its winner."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpo import account
from hpo.folder import StudyFolder
from hpo.journal import History, encode
from hpo.keeping import Keeper
from hpo.live import PlainView, Scoreboard
from hpo.notification import News, Notifier
from hpo.promote import chosen
from hpo.repeats import sentences
from hpo.report import gain, study_json, study_view
from hpo.summary import Summary
from hpo.track.mlflow.runs import MlflowTracker
from hpo.track.progress import best_trial, optimisation_curve
from hpo.track.wandb.contents import trial_run
from hpo.trials import Assignment, Direction, Ended, Ending, Event, Measurement, Outcome, Progressed, Started
from tests.hpo.test_view import RECORD, shown

LOWER = "validation/loss"


def events(number: int, value: float | None, seed: int, ending: Ending = Ending.COMPLETE) -> list[Event]:
    parameters = {"lr": 0.1} if seed or not number else {"lr": 0.1 * number}
    told = [] if value is None else [Progressed(number, Measurement(100, {LOWER: value}), 2.0, 100)]
    protected = seed > 0 or not number
    return [
        Started(Assignment(number, parameters, dict(parameters), seed, (), protected, repeat=seed > 0), slot=0),
        *told,
        Ended(number, Outcome(ending), 2.5, value if ending.has_value else None),
    ]


def study(
    baseline: list[float | None], others: list[float], *, direction: str = "minimize", ending: Ending = Ending.DIVERGED
) -> Summary:
    """The baseline's values by seed, None where it ended otherwise, then the other trials'."""
    history = History()
    for number, value in enumerate([*baseline, *others]):
        seed = number if number < len(baseline) else 0
        for event in events(number, value, seed, ending if value is None else Ending.COMPLETE):
            history.add(json.loads(encode(event, at=1.0 + number)))
    record = dataclasses.replace(RECORD, metric={**RECORD.metric, "direction": direction})
    return Summary(record, history, live=False)


# -- what is said ---------------------------------------------------------------------------------------


def test_the_winners_lead_is_told_in_deviations_between_seeds() -> None:
    said = sentences(study([3.5, 3.525, 3.475], [3.29, 3.6]))
    assert said == [
        "Standard deviation of validation/loss between seeds: 0.025 (3 seeds, mean 3.5); from so few seeds it is rough.",
        "The winner is ahead of the baseline's mean by 0.21, 8.4 deviations between seeds (0.025, 3 seeds).",
    ]


def test_more_is_better_where_the_metric_is_maximized() -> None:
    _, lead = sentences(study([3.5, 3.525, 3.475], [3.71, 3.29], direction="maximize"))
    assert lead.startswith("The winner is ahead of the baseline's mean by 0.21, 8.4 deviations")


def test_trials_within_two_deviations_of_a_difference_cannot_be_told_apart() -> None:
    # Between two trainings the deviation is 0.0354: 3.36 is 0.07 from the best, 3.362 is more than 2 of them away.
    found = study([3.5, 3.525, 3.475], [3.36, 3.29, 3.362, 3.3])
    assert sentences(found)[2:] == [
        "The best and trials 6 and 3 cannot be told apart: less than 0.0707 lies between, 2 deviations of a difference."
    ]
    assert study_json(found)["seeds"]["not_told_apart"] == [6, 3]
    assert len(sentences(study([3.5, 3.525, 3.475], [3.29, 3.362]))) == 2
    one = sentences(study([3.5, 3.525, 3.475], [3.29, 3.3]))[2]
    assert one.startswith("The best and trial 4 cannot be told apart: ")
    many = sentences(study([3.5, 3.525, 3.475], [3.29 + 0.001 * n for n in range(9)]))[2]
    assert many.startswith("The best and trials 4, 5, 6, 7, 8 and 3 more cannot")


def test_a_lead_within_chance_is_called_so() -> None:
    # One training beside the mean of three: 0.025 times the root of 4/3, twice, is 0.0577.
    assert sentences(study([3.5, 3.525, 3.475], [3.443]))[1].endswith("(0.025, 3 seeds): chance alone may do that.")
    assert sentences(study([3.5, 3.525, 3.475], [3.442]))[1].endswith("(0.025, 3 seeds).")


def test_a_winner_that_beats_an_unlucky_seed_alone_is_called_so() -> None:
    found = study([3.6, 3.4, 3.5], [3.55])
    assert gain(found) == "Trial 3 beats the baseline: validation/loss 3.6 -> 3.55 (-1.4%)."
    assert sentences(found)[1] == (
        "The winner is behind the baseline's mean by 0.05, 0.5 deviations between seeds (0.1, 3 seeds): "
        "it is ahead of the baseline's first seed alone."
    )


def test_where_the_first_seed_did_not_come_to_the_end_nobody_is_ahead_of_it() -> None:
    behind = sentences(study([None, 3.5, 3.6], [3.58]))[1]
    assert behind.startswith("The winner is behind the baseline's mean by 0.03, 0.4 deviations")
    assert "first seed" not in behind


def test_where_no_trial_beat_the_baseline_no_lead_is_told() -> None:
    found = study([3.4, 3.6, 3.5], [4.0])
    assert gain(found) == "No trial beat the baseline: validation/loss 3.4."
    assert len(sentences(found)) == 1
    assert study_json(found)["seeds"]["lead"] is None


def test_seeds_that_did_not_come_to_the_end_are_named() -> None:
    said = sentences(study([3.5, None, 3.6, 3.7], [3.0]))
    assert "(3 of 4 seeds trained in full, trial 1 diverged, mean 3.6)" in said[0]
    alone = study([3.5, None, None], [3.0])
    assert sentences(alone) == [
        "How much seeds change the metric is not known: 1 of 3 seeds trained in full, trial 1 diverged, trial 2 "
        "diverged, and it takes two."
    ]
    content = study_json(alone)["seeds"]
    assert (content["mean"], content["deviation"], content["lead_in_deviations"]) == (3.5, None, None)


def test_seeds_without_effect_are_no_reason_to_divide_by_nothing() -> None:
    found = study([3.5, 3.5, 3.5], [3.0, 3.0])
    assert sentences(found) == [
        "All 3 seeds of the baseline measured the same: validation/loss does not depend on the seed."
    ]
    assert study_json(found)["seeds"]["lead_in_deviations"] is None


def test_six_seeds_are_not_called_rough() -> None:
    five, six = ([3.5 + 0.01 * seed for seed in range(count)] for count in (5, 6))
    assert sentences(study(list(five), []))[0].endswith("; from so few seeds it is rough.")
    assert "rough" not in sentences(study(list(six), []))[0]


def test_show_the_report_and_the_json_have_it() -> None:
    found = study([3.5, 3.525, 3.475], [3.29, 3.6])
    for text in (shown(study_view(found), 200), account.report(found, ())):
        for sentence in sentences(found):
            assert sentence in text
    assert "repeat 1" in shown(study_view(found), 200)
    content = json.loads(json.dumps(study_json(found), allow_nan=False))["seeds"]
    assert content == {
        "trials": [0, 1, 2],
        "trained_in_full": 3,
        "mean": pytest.approx(3.5),
        "deviation": pytest.approx(statistics.stdev([3.5, 3.525, 3.475])),
        "lead": pytest.approx(0.21),
        "lead_in_deviations": pytest.approx(8.4),
        "not_told_apart": [],
    }


def test_of_a_study_with_one_seed_nothing_is_said() -> None:
    found = study([3.5], [3.29, 3.6])
    assert sentences(found) == []
    assert "seeds" not in study_json(found)
    assert "seed" not in shown(study_view(found)) + account.report(found, ()).partition("## How")[0]


def test_random_draws_are_not_taken_for_repeats_nor_repeats_for_random_draws() -> None:
    found = study([3.5, 3.525], [3.29, 3.6])
    drawn = found.history.trials[3]
    found.history.trials[3] = dataclasses.replace(drawn, protected=True)
    assert [trial.number for trial in found.drawn] == [3]
    assert "random 3" in shown(study_view(found))


def test_a_journal_from_before_repeats_were_written_down_tells_them_by_their_seeds() -> None:
    history = History()
    for number, seed in enumerate([0, 1, 2, 0, 0]):
        for event in events(number, 3.0, seed):
            line = json.loads(encode(event, 1.0))
            if line["event"] == "started":
                assert line.pop("repeat", False) is (seed > 0)
            history.add(line)
    assert [trial.repeat for trial in history.trials.values()] == [False, True, True, False, False]


# -- that a repeat never wins ---------------------------------------------------------------------------

LUCKY: list[float | None] = [3.5, 1.0, 3.6]


def test_a_lucky_seed_of_the_baseline_is_neither_the_best_nor_promoted() -> None:
    found = study(list(LUCKY), [3.2, 3.4])
    assert found.best is not None
    assert found.best.number == 3
    assert gain(found) == "Trial 3 beats the baseline: validation/loss 3.5 -> 3.2 (-8.6%)."
    assert chosen(found, None).number == 3
    worse = study(list(LUCKY), [3.7])
    assert gain(worse) == "No trial beat the baseline: validation/loss 3.5."


def test_trackers_and_their_curve_of_the_best_pass_it_over() -> None:
    history = study(list(LUCKY), [3.2, 3.4]).history
    best = best_trial(history, Direction.MINIMIZE)
    assert best is not None
    assert best.number == 3
    assert [(point.number, point.best, point.baseline) for point in optimisation_curve(history, Direction.MINIMIZE)] == [
        (0, 3.5, 3.5), (1, 3.5, 3.5), (2, 3.5, 3.5), (3, 3.2, 3.5), (4, 3.2, 3.5),
    ]  # fmt: skip


def test_trackers_say_what_it_is() -> None:
    trials = study(list(LUCKY), [3.2]).history.trials
    repeat = trial_run(RECORD, trials[1], left=False)
    assert (repeat.tags, repeat.notes) == (("repeat",), "The baseline once more, with seed 1.")
    assert trial_run(RECORD, trials[3], left=False).tags == ()
    runs = MlflowTracker.__new__(MlflowTracker)
    runs._study_run = "parent"
    assert runs._birth_tags(trials[1])["hpo.repeat"] == "true"
    assert "hpo.baseline" not in runs._birth_tags(trials[1])
    assert "hpo.repeat" not in runs._birth_tags(trials[0]).keys() | runs._birth_tags(trials[3]).keys()


@pytest.mark.parametrize("recorded", [False, True])
def test_the_live_screen_and_the_news_pass_it_over(tmp_path: Path, recorded: bool) -> None:
    told: list[Any] = []

    class Noted(Notifier):
        def tell(self, event: str, text: str, *, value: float | None = None, trial: int | None = None) -> None:
            told.append(trial)

    happened = [event for number, value in enumerate(LUCKY) for event in events(number, value, seed=number)]
    later = [event for number, value in ((3, 3.55), (4, 3.2)) for event in events(number, value, seed=0)]
    history = History()
    for event in happened if recorded else []:
        history.add(json.loads(encode(event, 1.0)))
    console = Console(file=io.StringIO(), width=300)
    board = Scoreboard(RECORD, history, 5, 1, lambda: 0.0)
    view = PlainView(console, board)
    news = News(Noted(None, "s", None, print), StudyFolder(tmp_path), RECORD, history)
    for event in later if recorded else [*happened, *later]:
        view.show(event)
        news.hear(event)
    assert board.best == (3.2, 4)
    assert board.baseline == 3.5
    assert told == [4]
    if not recorded:
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "trial 1 started in slot 0: baseline with seed 1, lr 0.1" in text
        assert "trial 1 complete after 2.5 s: 1, the baseline once more" in text


@pytest.mark.parametrize("recorded", [False, True])
def test_its_checkpoint_is_not_kept_and_the_bests_is(tmp_path: Path, recorded: bool) -> None:
    folder, history = StudyFolder(tmp_path), History()
    ended = [event for number, value in enumerate(LUCKY) for event in events(number, value, seed=number)]
    for number in range(3):
        folder.trial(number).mkdir(parents=True)
    for event in ended if recorded else []:
        history.add(json.loads(encode(event, 1.0)))
    keeper = Keeper(folder, Direction.MINIMIZE, "best", history)
    for event in [] if recorded else ended:
        keeper.hear(event)
    assert [path.name for path in folder.trial(0).parent.iterdir()] == ["0000"]


def test_a_lucky_seed_is_on_no_front() -> None:
    history = History()
    for number, (loss, size) in enumerate([(3.5, 5.0), (1.0, 1.0), (3.2, 9.0), (3.6, 2.0)]):
        for event in events(number, loss, seed=1 if number == 1 else 0):
            if isinstance(event, Progressed):
                event = dataclasses.replace(event, measurement=Measurement(100, {LOWER: loss, "size": size}))
            history.add(json.loads(encode(event, 1.0)))
    record = dataclasses.replace(RECORD, tradeoff=[{"name": "size", "direction": "minimize"}])
    found = Summary(record, history, live=False)
    assert [trial.number for trial in found.front] == [2, 0, 3]
    assert math.isclose(study_json(found)["seeds"]["deviation"], statistics.stdev([3.5, 1.0]))
    board = Scoreboard(record, history, 4, 1, lambda: 0.0)
    assert board.front == 3
