"""What a study has cost, what early stopping saved, and what is still to come: figures of the record alone."""

from __future__ import annotations

import json

import pytest

from hpo.folder import StudyRecord
from hpo.journal import History, StudyState, encode
from hpo.outlook import bill, in_all, outlook, spend_curve, spending_words
from hpo.report import study_json
from hpo.spending import Rates, Spent
from hpo.summary import Summary
from hpo.trials import Assignment, Ended, Ending, Event, Interrupted, Measurement, Outcome, Progressed, Started

RECORD = StudyRecord(
    name="s", id="i", created=0.0, sweep_name="s", origin="s.yaml", assignments=[], objective="m:train",
    metric={"name": "loss", "direction": "minimize", "at": "last"},
    search={"sampler": "tpe", "pruner": "none", "trials": 5, "seed": 0, "rungs": []},
    fixed={}, space={"lr": "0 to 1"}, facts={}, versions={}, mlflow=None,
    rates={"gpus_per_slot": 0.5, "price_per_gpu_hour": 3.0, "unit": "GPU-hours"},
)  # fmt: skip


def started(number: int) -> Event:
    return Started(Assignment(number, {"lr": 0.1}, {"lr": 0.1}, 0, (), protected=number == 0), slot=number % 2)


def measured(number: int, progress: int, seconds: float) -> Event:
    return Progressed(number, Measurement(progress, {"loss": 1.0}), seconds, 100)


def ended(number: int, ending: Ending, seconds: float) -> Event:
    return Ended(number, Outcome(ending), seconds, 1.0)


def history(*events: Event | StudyState, at: float = 10.0) -> History:
    folded = History()
    for place, event in enumerate(events):
        folded.add(json.loads(encode(event, at + place)))
    return folded


STOPPED = (started(1), measured(1, 25, 500.0), ended(1, Ending.STOPPED, 500.0))
COMPLETE = (started(0), measured(0, 100, 1500.0), ended(0, Ending.COMPLETE, 1500.0))


def test_each_ending_has_its_trials_time_and_share() -> None:
    found = bill(history(*COMPLETE, *STOPPED))
    assert [(share.state, share.trials, share.seconds, share.share) for share in found.shares] == [
        ("complete", 1, 1500.0, 0.75),
        ("stopped", 1, 500.0, 0.25),
    ]


def test_early_stopping_saved_the_rest_of_a_trial_at_its_own_pace() -> None:
    found = bill(history(*COMPLETE, *STOPPED))
    assert found.saved == 1500.0
    assert found.saved_share == pytest.approx(1500 / 3500)


def test_what_diverged_is_not_counted_as_saved_by_early_stopping() -> None:
    assert bill(history(started(1), measured(1, 25, 500.0), ended(1, Ending.DIVERGED, 500.0))).saved == 0.0


def test_setbacks_are_counted_by_what_happened() -> None:
    set_aside = Interrupted(1, 100.0, Outcome(Ending.KILLED, "killed by SIGKILL"))
    found = bill(history(*COMPLETE, started(1), measured(1, 25, 90.0), set_aside))
    assert found.setbacks == {"killed": 1}


def test_nothing_is_known_before_the_first_measurement_and_at_most_is_said_before_the_first_ending() -> None:
    assert outlook(history(started(0), started(1)), 4, 2) is None
    rest = outlook(history(started(0), started(1), measured(1, 50, 60.0)), 4, 2)
    assert rest is not None
    assert rest.at_most
    assert rest.slot_seconds == 60.0 + 3 * 120.0  # trial 0 has not measured: it will be as the other


def test_a_trial_in_flight_counts_for_what_those_took_that_came_as_far() -> None:
    stopped_early = (started(2), measured(2, 10, 100.0), ended(2, Ending.STOPPED, 100.0))
    in_flight = (started(3), measured(3, 20, 300.0))
    rest = outlook(history(*COMPLETE, *STOPPED, *stopped_early, *in_flight), 4, 2, since={3: 50.0})
    assert rest is not None
    assert rest.slot_seconds == pytest.approx((1500.0 + 500.0) / 2 - 350.0)  # the one that ended at 100 s tells nothing
    assert rest.seconds == rest.slot_seconds


def test_the_longest_in_flight_is_waited_for() -> None:
    rest = outlook(history(*COMPLETE, *STOPPED, started(2), measured(2, 50, 700.0)), 3, 2)
    assert rest is not None
    assert rest.seconds == 700.0


def test_what_will_have_been_spent_is_what_was_and_what_is_to_come() -> None:
    rates = Rates(2.0, 1.5)
    rest = outlook(history(*COMPLETE, *STOPPED), 3, 2)
    assert rest is not None
    whole = in_all(Spent.of(1500.0, 2000.0, rates), rest, rates)
    assert whole.gpu_hours == pytest.approx(3000.0 / 3600 * 2)
    assert whole.cost == pytest.approx(whole.gpu_hours * 1.5)
    assert whole.seconds == 2500.0


def test_a_trackers_curve_is_what_the_trials_cost_up_to_each_and_only_grows_at_its_end() -> None:
    curve = spend_curve(history(*COMPLETE, *STOPPED), RECORD)
    assert [point.metrics["spend/gpu_hours"] for point in curve] == pytest.approx([1500 / 7200, 2000 / 7200])
    assert curve[-1].metrics["spend/cost"] == pytest.approx(2000 / 7200 * 3.0)
    assert spend_curve(history(*COMPLETE), RECORD) == curve[:1]
    assert spend_curve(history(started(0), *STOPPED), RECORD) == []


def test_a_tracker_says_what_was_spent_and_what_it_will_be() -> None:
    running = history(StudyState("running"), *COMPLETE, *STOPPED)
    assert spending_words(running, RECORD).startswith("Spent 0.278 GPU-hours, cost 0.833 in ")
    assert "; about 0.694 GPU-hours, cost 2.08 in " in spending_words(running, RECORD)
    assert spending_words(running, RECORD).endswith(" in all.")


def test_the_json_of_a_study_says_what_it_cost() -> None:
    events = (StudyState("running"), *COMPLETE, *STOPPED, StudyState("finished", "", 1700.0))
    spent = study_json(Summary(RECORD, history(*events), live=False))["spent"]
    assert spent["wall_seconds"] == 1700.0
    assert spent["endings"]["stopped"] == {"trials": 1, "seconds": 500.0, "share": 0.25}
    assert spent["saved_by_early_stopping_seconds"] == 1500.0
    assert spent["cost"] == pytest.approx(2000 / 3600 * 0.5 * 3.0)
