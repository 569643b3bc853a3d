"""What a study's trials have cost so far, by how they ended, and what is still to come.

Computed from the record alone: the same record gives the same figures, whoever asks. Knows no process and no screen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.folder import StudyRecord
from hpo.journal import History, TrialRecord
from hpo.spending import Rates, Spent
from hpo.trials import Ending
from hpo.wording import duration, number


@dataclass(frozen=True, slots=True)
class Share:
    """What the trials of one ending cost: how many, seconds in their slots, and the share of all such seconds."""

    state: str
    trials: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Bill:
    """What a study cost.

    Attributes:
        shares: by ending, the costliest first; trials that have not ended are among them by their state.
        seconds: of all trials together.
        saved: seconds that trials stopped early would have needed further, each at its own pace; of those whose length
            is known.
        setbacks: how often trials began again, by what had happened to them.
    """

    shares: tuple[Share, ...]
    seconds: float
    saved: float
    setbacks: Mapping[str, int]

    @property
    def saved_share(self) -> float:
        """Of what the study would have cost without early stopping; 0 to 1."""
        return self.saved / (self.saved + self.seconds) if self.saved else 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is still to come of a study.

    Attributes:
        slot_seconds: that trials will still take, those that run and those to be started.
        seconds: of wall time until the last one ends.
        at_most: no trial has ended yet, so nothing is known of trials that are stopped.
    """

    slot_seconds: float
    seconds: float
    at_most: bool


def rates_of(record: StudyRecord) -> Rates:
    """What an hour of a slot is; the defaults for a study of before they were kept."""
    return Rates.read(record.rates)


def bill(history: History) -> Bill:
    """What a study has cost by ending, and what early stopping saved."""
    seconds: dict[str, float] = {}
    for trial in history.trials.values():
        seconds[trial.state] = seconds.get(trial.state, 0.0) + trial.seconds
    counts = Counter(trial.state for trial in history.trials.values())
    total = sum(trial.seconds for trial in history.trials.values())
    shares = [Share(state, counts[state], taken, taken / total if total else 0.0) for state, taken in seconds.items()]
    stopped = [trial for trial in history.trials.values() if trial.ending is Ending.STOPPED]
    return Bill(
        tuple(sorted(shares, key=lambda share: -share.seconds)),
        total,
        sum(_rest(trial) or 0.0 for trial in stopped),
        Counter(setback.ending.value for trial in history.trials.values() for setback in trial.setbacks),
    )


def _rest(trial: TrialRecord) -> float | None:
    """Seconds to its end at its own pace, or None where its length or its pace is unknown."""
    if trial.length is None or not trial.progress:
        return None
    return max(0.0, trial.length - trial.progress) * trial.seconds / trial.progress


def outlook(history: History, trials: int, slots: int, since: Mapping[int, float] | None = None) -> Outlook | None:
    """What is still to come, judged by the trials that have ended and how far the others are.

    A trial in a slot will take as long as the mean of those that took longer than it has; its own pace says where
    none did. A trial to come will take the mean of all, these included: stopped ones end first, and a mean of the
    ended ones alone would promise too little.

    Args:
        history: of the study.
        trials: how many are to end in all.
        slots: how many run at once.
        since: seconds since each running trial was last heard of.

    Returns:
        None where no trial has measured yet.
    """
    ended = [trial.seconds for trial in history.ended]
    rests: list[float] = []
    totals = list(ended)
    for trial in history.unfinished:
        silent = 0.0 if since is None else since.get(trial.number, 0.0)
        rest, spent = _still(trial, silent, [] if trial.protected else ended), trial.seconds + silent
        if rest is not None:
            rests.append(rest)
            totals.append(spent + rest)
    if not totals:
        return None
    mean = sum(totals) / len(totals)
    rests += [mean] * (len(history.unfinished) - len(rests))
    to_come = max(0, trials - len(history.trials))
    slot_seconds = sum(rests) + to_come * mean
    busy = max(1, min(slots, len(rests) + to_come))
    return Outlook(slot_seconds, max([slot_seconds / busy, *rests]), not ended)


def _still(trial: TrialRecord, silent: float, ended: list[float]) -> float | None:
    spent = trial.seconds + silent
    longer = [seconds for seconds in ended if seconds > spent]
    own = _rest(trial)
    if own is not None:
        own = max(0.0, own - silent)
    if longer:
        mean = sum(longer) / len(longer) - spent
        return mean if own is None else min(mean, own)
    return own


def in_all(spent: Spent, rest: Outlook, rates: Rates) -> Spent:
    """What a study will have spent when it is over."""
    to_come = Spent.of(rest.seconds, rest.slot_seconds, rates)
    cost = None if spent.cost is None or to_come.cost is None else spent.cost + to_come.cost
    return Spent(spent.seconds + to_come.seconds, spent.gpu_hours + to_come.gpu_hours, cost)


@dataclass(frozen=True, slots=True)
class Point:
    """What the trials up to `number` have cost, as metrics by name; `at` is when it was known."""

    number: int
    at: float
    metrics: Mapping[str, float]


def spend_curve(history: History, record: StudyRecord) -> list[Point]:
    """The cost of a study by trial number, as far as all trials up to it have ended, for trackers.

    By number and not by time of ending, so that it only ever grows at its end, and lies over the curve of the best.
    """
    rates, seconds, at = rates_of(record), 0.0, 0.0
    points: list[Point] = []
    for index in sorted(history.trials):
        trial = history.trials[index]
        if trial.ending is None or trial.ended_at is None:
            break
        seconds, at = seconds + trial.seconds, max(at, trial.ended_at)
        spent = Spent.of(0.0, seconds, rates)
        metrics = {"spend/gpu_hours": spent.gpu_hours}
        points.append(Point(index, at, metrics if spent.cost is None else {**metrics, "spend/cost": spent.cost}))
    return points


def spending_words(history: History, record: StudyRecord) -> str:
    """One sentence on what a study has spent and will have spent, as far as its record says."""
    rates = rates_of(record)
    now = Spent.of(history.elapsed, sum(trial.seconds for trial in history.trials.values()), rates)
    slots = 1 + max((trial.slot for trial in history.trials.values()), default=0)
    rest = outlook(history, int(record.search["trials"]), slots)
    text = f"Spent {_words(now, rates)}"
    if rest is None or not rest.seconds:
        return f"{text}."
    return f"{text}; {'at most' if rest.at_most else 'about'} {_words(in_all(now, rest, rates), rates)} in all."


def _words(spent: Spent, rates: Rates) -> str:
    cost = "" if spent.cost is None else f", cost {number(spent.cost, 3)}"
    return f"{number(spent.gpu_hours, 3)} {rates.unit}{cost} in {duration(spent.seconds)}"
