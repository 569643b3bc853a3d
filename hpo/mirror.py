"""Optuna's own study of a search: what its samplers and its pruners know of the trials.

Its store is a journal file with one writer, this process. The record in `hpo.journal` is always ahead of it or level;
on opening, it is brought back to the record where it knows more, and up to it trial by trial (`Mirror.recall`). Knows
no stopping rule of ours and no sampler of ours, and nothing of how what it is told was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo.avoidance import Avoiding, expectation
from hpo.distributions import distribution, same, suggest
from hpo.folder import StudyFolder
from hpo.journal import History, TrialRecord
from hpo.notices import quiet
from hpo.space import Space
from hpo.store import Store
from hpo.trials import Direction, Ending, Value

optuna.logging.set_verbosity(optuna.logging.ERROR)

_TOLD = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.STOPPED: TrialState.PRUNED,
    # A diverged configuration is a bad one, and the sampler should learn that: pruned without a value ranks
    # below every trial that has one. What failed or was killed says nothing of its configuration.
    Ending.DIVERGED: TrialState.PRUNED,
    # So is one that does not fit, which it is told as a constraint that does not hold.
    Ending.OUT_OF_MEMORY: TrialState.PRUNED,
    Ending.KILLED: TrialState.FAIL,
    Ending.HUNG: TrialState.FAIL,
    Ending.FAILED: TrialState.FAIL,
}

_FITS = "fits into memory"


class Mirror:
    """Optuna's study, opened with no more in it than the record has.

    Args:
        space: what is searched.
        direction: of the metric.
        folder: the study's folder; None: nothing is kept.
        history: what the record says.
        pruner: what Optuna's trials are judged by, where a rule asks them (`should_prune`).
    """

    def __init__(
        self,
        space: Space,
        direction: Direction,
        folder: StudyFolder | None,
        history: History,
        pruner: optuna.pruners.BasePruner,
    ) -> None:
        self._space, self._direction, self._pruner = space, direction, pruner
        self._has_overflown = any(trial.ending is Ending.OUT_OF_MEMORY for trial in history.ended)
        self._live: dict[int, Trial] = {}
        with quiet():
            self._dimensions = {parameter.name: distribution(parameter.dimension) for parameter in space.parameters}
            self._study = self._new() if folder is None else self._opened(folder, history)
            self._stored = {trial.number: trial for trial in self.trials}

    @property
    def trials(self) -> Sequence[FrozenTrial]:
        """What Optuna has; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def _new(self) -> optuna.Study:
        return optuna.create_study(direction=self._direction.value, pruner=self._pruner)

    def _opened(self, folder: StudyFolder, history: History) -> optuna.Study:
        """Its store, cut back to the trials that the record has, as they were assigned."""
        stored = self._open(folder).get_trials(deepcopy=False)
        if _is_ahead(stored, history):
            # The record was lost in part, or another folder's store lies here: the record decides.
            folder.optuna.rename(folder.optuna.with_suffix(f".{int(time.time())}.jsonl"))
            stored = []
        Store(folder.optuna).keep(_whole(stored, history))
        return self._open(folder)

    def _open(self, folder: StudyFolder) -> optuna.Study:
        return optuna.create_study(
            storage=JournalStorage(Store(folder.optuna)),
            study_name=folder.name,
            direction=self._direction.value,
            pruner=self._pruner,
            load_if_exists=True,
        )

    def ask(
        self, number: int, make: Callable[[int], BaseSampler], known: Mapping[str, Value] | None
    ) -> dict[str, Value]:
        """The next trial's parameters, by one of Optuna's samplers where they are not known.

        Args:
            number: the trial's, which Optuna's is to be, too.
            make: the sampler for a draw: 0, and what follows where a draw is not expected to fit into memory.
            known: parameters that are given.
        """
        with quiet():
            self._study.sampler = Avoiding(make) if self._has_overflown else make(0)
            if known is not None:
                self._study.enqueue_trial(dict(known))
            trial = self._study.ask()
            assert trial.number == number, f"Optuna numbers this trial {trial.number}, the journal {number}"
            self._live[number] = trial
            return self._space.fill(lambda parameter: suggest(trial, parameter))

    def add(self, number: int, parameters: Mapping[str, Value]) -> None:
        """A running trial that was asked for elsewhere."""
        with quiet():
            self._live[number] = self._added(parameters)

    def _added(self, parameters: Mapping[str, Value]) -> Trial:
        """Optuna's number for it is the next one, as ours is."""
        searched = {name: value for name, value in parameters.items() if name in self._dimensions}
        frozen = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=searched,
            distributions={name: self._dimensions[name] for name in searched},
        )
        return Trial(self._study, self._study._storage.create_new_trial(self._study._study_id, frozen))

    def fits(self) -> Callable[[Mapping[str, Value]], bool]:
        """Whether a configuration is expected to fit into memory, by what did and did not so far."""
        return expectation(self.trials, self._dimensions) if self._has_overflown else lambda values: True

    def report(self, number: int, progress: int, value: float) -> None:
        with quiet():
            self._live[number].report(value, step=progress)

    def should_prune(self, number: int) -> bool:
        """What Optuna's pruner says of a trial after its last report."""
        with quiet():
            return self._live[number].should_prune()

    def tell(self, number: int, ending: Ending, value: float | None) -> None:
        """How a trial ended; `value` of one trained in full, None of any other."""
        self._tell(self._live.pop(number), ending, value)

    def _tell(self, trial: Trial, ending: Ending, value: float | None) -> None:
        with quiet():
            self._has_overflown |= ending is Ending.OUT_OF_MEMORY
            if ending is Ending.OUT_OF_MEMORY and not trial.constraints:
                trial.set_constraint(_FITS, 1.0)
            self._study.tell(trial, value, state=_TOLD[ending])

    def recall(self, record: TrialRecord, curve: Mapping[int, float]) -> None:
        """Add, report and tell what the record has of a trial and Optuna's store lacks; in the order of their numbers.

        Args:
            record: the trial's.
            curve: values by progress, as they were reported.
        """
        frozen = self._stored.pop(record.number, None)
        if frozen is not None and frozen.state.is_finished():
            return
        with quiet():
            trial = self._added(record.parameters) if frozen is None else Trial(self._study, frozen._trial_id)
            for progress, value in curve.items():
                if frozen is None or progress not in frozen.intermediate_values:
                    trial.report(value, step=progress)
        if record.ending is None:
            self._live[record.number] = trial
        else:
            self._tell(trial, record.ending, record.value if record.ending is Ending.COMPLETE else None)


def _is_ahead(stored: Sequence[FrozenTrial], history: History) -> bool:
    """Whether Optuna's store knows of endings or parameters that the record does not."""
    for trial in stored:
        record = history.trials.get(trial.number)
        if record is None:
            if trial.state.is_finished():
                return True
        elif (trial.state.is_finished() and record.ending is None) or any(
            not same(record.parameters.get(name, value), value) for name, value in trial.params.items()
        ):
            return True
    return False


def _whole(stored: Sequence[FrozenTrial], history: History) -> int:
    """How many trials, from the first on, Optuna's store has as they were assigned."""
    for count, trial in enumerate(stored):
        record = history.trials.get(trial.number)
        if record is None or trial.state is TrialState.WAITING:
            return count
        if not trial.params.keys() >= record.parameters.keys():
            return count
    return len(stored)
