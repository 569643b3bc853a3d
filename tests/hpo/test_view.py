"""What people see: numbers, tables, the live screen and its plain lines."""

from __future__ import annotations

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from hpo.folder import StudyRecord
from hpo.journal import History, encode
from hpo.live import LiveView, PlainView, Scoreboard, sparkline
from hpo.report import gain, study_json, study_view, trial_view
from hpo.summary import Summary
from hpo.trials import Assignment, Ended, Ending, Event, Measurement, Outcome, Progressed, Started
from hpo.wording import duration, number

RECORD = StudyRecord(
    name="s", id="i", created=0.0, sweep_name="s", origin="s.yaml", assignments=[], objective="m:train",
    metric={"name": "validation/loss", "direction": "minimize", "at": "last"},
    search={"sampler": "tpe", "pruner": "none", "trials": 3, "seed": 0, "rungs": []},
    fixed={}, space={"lr": "0 to 1"}, facts={}, versions={}, mlflow=None,
)  # fmt: skip


def trial(number: int, value: float, ending: Ending = Ending.COMPLETE, reason: str = "") -> list[Event]:
    assignment = Assignment(number, {"lr": 0.1 * number}, {"lr": 0.1 * number}, 0, (), protected=number == 0)
    told = value if ending.has_value else None
    return [
        Started(assignment, slot=number % 2),
        Progressed(number, Measurement(50, {"validation/loss": value + 1}), 1.0, 100),
        Progressed(number, Measurement(100, {"validation/loss": value}), 2.0, 100),
        Ended(number, Outcome(ending, reason), 2.5, told),
    ]


EVENTS = trial(0, 3.0) + trial(1, 2.0) + trial(2, math.nan, Ending.DIVERGED, "validation/loss is nan at 100")


def summary() -> Summary:
    history = History()
    for event in EVENTS:
        history.add(json.loads(encode(event, at=1.0)))
    return Summary(RECORD, history, live=False)


def shown(renderable: object, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000123456, "0.0001235"), (3e-5, "3e-05"), (2.0, "2"), (123456, "123,456"), (64, "64"), (True, "True"), (None, "-"),
     (math.nan, "nan"), (45678.9, "45,679")],
)  # fmt: skip
def test_numbers_have_four_significant_digits(value: object, text: str) -> None:
    assert number(value) == text


def test_durations_are_said_as_people_do() -> None:
    assert [duration(s) for s in (4.25, 42, 200, 7500)] == ["4.2 s", "42 s", "3 min 20 s", "2 h 5 min"]


def test_the_best_is_a_complete_trial_and_the_gain_is_over_the_baseline() -> None:
    assert gain(summary()) == "Trial 1 beats the baseline: validation/loss 3 -> 2 (-33.3%)."


def test_json_has_the_promised_keys_and_no_nan() -> None:
    content = json.loads(json.dumps(study_json(summary()), allow_nan=False))
    assert list(content) == ["name", "state", "metric", "direction", "baseline", "best", "trials", "spent"]
    for item in (content["baseline"], content["best"], *content["trials"]):
        assert {"number", "state", "params", "value", "progress", "seconds", "metrics"} <= item.keys()
    assert content["best"]["number"] == 1
    assert content["trials"][2]["metrics"] == {"validation/loss": None}


def test_the_table_is_sorted_by_value_and_names_what_diverged() -> None:
    text = shown(study_view(summary()))
    assert text.index(" 1 ") < text.index("baseline 0") < text.index("diverged")


def test_a_trials_page_has_its_curve() -> None:
    view = summary()
    assert "50" in shown(trial_view(view, view.history.trials[1]))


def test_plain_lines_tell_each_event_once() -> None:
    console = Console(file=io.StringIO(), width=200)
    view = PlainView(console, Scoreboard(RECORD, History(), 3, 2, lambda: 0.0))
    for event in EVENTS:
        view.show(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == len(EVENTS)
    assert lines[0] == "trial 0 started in slot 0: baseline, lr 0"
    assert lines[2] == "trial 0 at 100 (100%): validation/loss 3, 2.0 s"
    assert (
        lines[3]
        == "trial 0 complete after 2.5 s: 3, the baseline; 1/3 trials, about 2.5 s left, spent 0.000694 of about 0.00208 slot-hours"
    )
    assert lines[-1].startswith("trial 2 diverged after 2.5 s: validation/loss is nan at 100; 3/3 trials")


def test_the_live_screen_shows_slots_score_and_endings() -> None:
    board = Scoreboard(RECORD, History(), 3, 2, lambda: 10.0)
    for event in EVENTS[:-2]:
        board.add(event)
    view = LiveView.__new__(LiveView)
    view._board, view._note = board, "Stopping"
    text = shown(view._draw(), 120)
    assert "2/3 trials" in text
    assert "best 2 (trial 1: lr 0.1)" in text
    assert "baseline 3" in text
    assert "complete" in text
    assert "Stopping" in text


def test_time_left_follows_from_the_trials_that_ended_and_how_far_the_others_are() -> None:
    board = Scoreboard(RECORD, History(), 4, 2, lambda: 10.0)
    for event in EVENTS[:4] + EVENTS[4:6]:  # one took 2.5 s; one is half way after 1 s
        board.add(event)
    rest = board.outlook
    assert rest is not None
    assert rest.slot_seconds == pytest.approx(1.0 + 2 * (2.5 + 2.0) / 2)
    assert board.left == "about 2.8 s left"


def test_a_sparkline_scales_to_its_curve_and_leaves_gaps() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▄█"
    assert sparkline([1.0, math.nan, 0.0]) == "█ ▁"
    assert sparkline([math.nan]) == ""


def test_trials_drawn_at_random_tell_what_random_search_is_expected_to_find() -> None:
    history = History()
    for number_, value in enumerate([3.0, 2.0, 4.0, 1.0, 5.0]):
        for event in trial(number_, value, Ending.DIVERGED if value == 5.0 else Ending.COMPLETE):
            if isinstance(event, Started):
                event = Started(dataclasses.replace(event.assignment, protected=number_ != 1), event.slot)
            history.add(json.loads(encode(event, at=1.0)))
    found = Summary(RECORD, history, live=False)
    assert [one.number for one in found.drawn] == [2, 3, 4]
    assert found.drawn_values == [4.0, 1.0, 4.0]  # the diverged counts as the worst that did not
    text = shown(study_view(found))
    assert "from 3 trials that were drawn at random and never stopped; 1 of them could not be trained" in text
    assert "random 3" in text
    assert study_json(found)["unbiased"]["expected_best"][0]["value"] == 3.0
    assert "unbiased" not in study_json(summary())
