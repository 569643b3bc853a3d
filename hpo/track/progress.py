"""What a tracker says of a study as a whole, computed from its history alone.

The same history gives the same answer, in whatever portions it came: that is what lets a tracker write it
again. Knows no tracker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpo.folder import StudyRecord
from hpo.journal import History, TrialRecord
from hpo.track import spelling
from hpo.trials import Direction, Ending


@dataclass(frozen=True, slots=True)
class Point:
    """The best of the trials up to `number`, beside the baseline's value; `at` is when it was known."""

    number: int
    best: float
    baseline: float | None
    at: float


def best_trial(history: History, direction: Direction) -> TrialRecord | None:
    """The best trial that was trained in full; a stopped one's value stands at a lower progress. A repeat is none."""
    best: TrialRecord | None = None
    for trial in history.trials.values():
        if trial.ending is not Ending.COMPLETE or trial.value is None or trial.repeat:
            continue
        if best is None or best.value is None or direction.better(trial.value, best.value):
            best = trial
    return best


def optimisation_curve(history: History, direction: Direction) -> list[Point]:
    """Best so far by trial number, as far as all trials up to it have ended.

    By number and not by time of ending, so that the curve starts with the baseline (trial 0) and says what
    each further trial was worth, whatever ran beside it.
    """
    points: list[Point] = []
    best: float | None = None
    at = 0.0
    for number in sorted(history.trials):
        trial = history.trials[number]
        if trial.ending is None or trial.ended_at is None:
            break
        at = max(at, trial.ended_at)
        complete = trial.ending is Ending.COMPLETE and trial.value is not None and not trial.repeat
        if complete and trial.value is not None and (best is None or direction.better(trial.value, best)):
            best = trial.value
        if best is not None:
            points.append(Point(number, best, history.trials[0].value if 0 in history.trials else None, at))
    return points


def counts(history: History) -> dict[str, int]:
    """How many trials ended in each way; complete and stopped always, others where there are any."""
    found = {ending: sum(trial.ending is ending for trial in history.trials.values()) for ending in Ending}
    always = (Ending.COMPLETE, Ending.STOPPED)
    return {ending.value.replace(" ", "_"): n for ending, n in found.items() if n or ending in always}


def setbacks(trial: TrialRecord) -> str:
    """What befell a trial that then went on."""
    return "; ".join(f"{setback.ending.value}: {setback.reason}" for setback in trial.setbacks)


def summary(history: History, record: StudyRecord, link: Callable[[int], str]) -> str:
    """A study in a few lines of Markdown.

    Args:
        history: as far as it has come.
        record: of the study.
        link: the address of a trial's page, or "".
    """
    direction, metric = Direction(record.metric["direction"]), record.metric["name"]
    best = best_trial(history, direction)
    tally = ", ".join(f"{n} {word.replace('_', ' ')}" for word, n in counts(history).items() if n)
    ended = f"{len(history.ended)} of {record.search['trials']} trials ended{f': {tally}' if tally else ''}."
    if best is None or best.value is None:
        return f"No trial is complete yet. {ended}"
    address = link(best.number)
    name = f"[trial {best.number}]({address})" if address else f"trial {best.number}"
    baseline = history.trials[0].value if 0 in history.trials else None
    against = ""
    if best.number == 0:
        against = ", which is the baseline"
    elif baseline:
        change = 100 * (best.value - baseline) / abs(baseline)
        against = f", baseline {baseline:.4g} ({change:+.1f}%)"
    parameters = ", ".join(f"`{key}` {spelling.value(value)}" for key, value in best.parameters.items())
    return f"Best: {name}, {metric} {best.value:.4g}{against}. {ended}\n\n{parameters}"
