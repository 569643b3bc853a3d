"""What follows an ending that was not the trial's own: retries, divisions, slots out of service, the study's end.

A scripted launcher plays the machine: each test says what happens to which trial, and time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpo.folder import StudyFolder
from hpo.journal import History, Journal
from hpo.launch import Begun, Finished, Happening, Job, Report
from hpo.operation import Budget, OnFailure
from hpo.recovery import Alike, Slots
from hpo.search import DiskFull, RepeatedFailure, Search
from hpo.spending import Meter, Rates
from hpo.trials import Assignment, Ended, Ending, Event, Interrupted, Measured, Measurement, Outcome, Retired, Started

KILLED = Outcome(Ending.KILLED, "killed by SIGKILL")
FAILED = Outcome(Ending.FAILED, "RuntimeError: no")
MEMORY = Outcome(Ending.OUT_OF_MEMORY, "no memory")
FINE = Outcome(Ending.COMPLETE)


class Numbered:
    """Trials without an end, each measured once at its whole length of 10."""

    size = float("inf")

    def __init__(self, asked: int = 0) -> None:
        self.asked = asked
        self.told: dict[int, Outcome] = {}

    def ask(self) -> Assignment:
        self.asked += 1
        return Assignment(self.asked - 1, {}, {}, 0, (10,))

    def revive(self, *, last: bool) -> int | None:
        return None

    def pause(self, number: int) -> None:
        """Nothing is set aside."""

    def least(self) -> int | None:
        return None

    def report(
        self, assignment: Assignment, measurement: Measured, *, length: int | None, warmup: int, seconds: float | None
    ) -> Outcome | None:
        return None

    def value(self, number: int) -> float | None:
        return 1.0

    def tell(self, number: int, outcome: Outcome) -> None:
        self.told[number] = outcome


@dataclass
class Scripted:
    """Slots in which jobs end as `script` says; an ending of None measures and completes, "silent" does nothing."""

    script: Callable[[Job, int], Outcome | str]
    clock: list[float]
    slots: int = 1
    taken: dict[int, tuple[int, Job]] = field(default_factory=dict)
    jobs: list[tuple[int, int, int]] = field(default_factory=list)
    divisible: bool = True
    disk_full: bool = False
    ended: dict[int, Outcome] = field(default_factory=dict)
    waits: list[float | None] = field(default_factory=list)

    @property
    def free(self) -> list[int]:
        busy = {slot for slot, _ in self.taken.values()}
        return [slot for slot in range(self.slots) if slot not in busy]

    def start(self, job: Job, slot: int) -> None:
        self.taken[job.number] = (slot, job)
        self.jobs.append((job.number, slot, job.divide))

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        self.clock[0] += 1.0
        self.waits.append(timeout)
        assert len(self.waits) < 10_000, "it never ends"
        for number, (slot, job) in list(self.taken.items()):
            what = self.ended.get(number) or self.script(job, slot)
            yield Begun(number, 10)
            if what == "silent":
                continue
            assert isinstance(what, Outcome)
            if what is FINE:
                yield Report(number, Measurement(10, {"loss": 1.0}), 1.0, 10)
            del self.taken[number]
            yield Finished(number, what, 1.0, self.divisible, self.disk_full)

    def answer(self, number: int, *, go_on: bool) -> None: ...

    def end(self, number: int, outcome: Outcome) -> None:
        self.ended[number] = outcome

    def call(self, *arguments: object, **more: object) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Play:
    """One search over a scripted launcher."""

    root: Path
    launcher: Scripted
    policy: OnFailure = field(default_factory=lambda: OnFailure(wait_seconds=0.0))
    trials: int = 3
    divides: bool = True
    study: Numbered = field(default_factory=Numbered)
    leave: Callable[[], bool] = lambda: False
    meter: Meter | None = None

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root)

    @property
    def history(self) -> History:
        return History.read(self.folder.journal)

    def events(self) -> Iterator[Event]:
        history, clock = self.history, self.launcher.clock
        with Journal(self.folder.journal, lambda: clock[0]) as journal:
            yield from Search(
                self.study, self.launcher, journal, self.folder, history, self.trials, self.leave, self.policy,
                self.divides, self.meter, clock=lambda: clock[0],
            ).events()  # fmt: skip


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Play]:
    def make(script: Callable[[Job, int], Outcome | str], slots: int = 1, **more: object) -> Play:
        return Play(tmp_path, Scripted(script, [0.0], slots), **more)  # type: ignore[arg-type]

    return make


def starts(events: list[Event]) -> list[int]:
    return [event.assignment.number for event in events if isinstance(event, Started)]


def test_a_killed_trial_begins_again_and_keeps_its_number(play: Callable[..., Play]) -> None:
    killed: list[int] = []

    def script(job: Job, slot: int) -> Outcome:
        if job.number == 1 and len(killed) < 2:
            killed.append(job.number)
            return KILLED
        return FINE

    search = play(script)
    events = list(search.events())
    assert starts(events) == [0, 1, 1, 1, 2]
    assert [event.setback for event in events if isinstance(event, Interrupted)] == [KILLED, KILLED]
    trial = search.history.trials[1]
    assert (trial.ending, trial.attempts, trial.setbacks) == (Ending.COMPLETE, 3, [KILLED, KILLED])


def test_a_trial_that_is_killed_too_often_ends_so(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: KILLED if job.number == 1 else FINE)
    events = list(search.events())
    assert starts(events) == [0, 1, 1, 1, 2]
    assert search.study.told[1] == KILLED
    assert len(search.history.ended) == 3


def test_tries_before_a_death_of_the_coordinator_count(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: KILLED if job.number == 1 else FINE)
    events = search.events()
    for event in events:
        if isinstance(event, Interrupted):
            break
    events.close()  # the coordinator dies
    search.launcher.taken.clear()
    search.study = Numbered(asked=2)
    assert starts(list(search.events())) == [1, 1, 2]
    assert len(search.history.trials[1].setbacks) == 2


def test_each_wait_is_twice_as_long_and_the_slot_goes_on_meanwhile(play: Callable[..., Play]) -> None:
    search = play(
        lambda job, slot: KILLED if job.number == 0 else FINE, trials=12, policy=OnFailure(wait_seconds=3.0, retries=2)
    )
    order = starts(list(search.events()))
    first, second, third = (index for index, number in enumerate(order) if number == 0)
    assert second - first >= 3  # at a second a trial
    assert third - second >= 6
    assert sorted(set(order)) == list(range(12))


def test_what_does_not_fit_is_divided_until_it_does(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: MEMORY if job.divide < 4 else FINE, trials=1)
    list(search.events())
    assert search.launcher.jobs == [(0, 0, 1), (0, 0, 2), (0, 0, 4)]
    assert search.history.trials[0].ending is Ending.COMPLETE
    assert search.history.assignment(0).divide == 4


@pytest.mark.parametrize("why", ["indivisible", "no parts", "policy"])
def test_what_cannot_be_divided_ends_out_of_memory(play: Callable[..., Play], why: str) -> None:
    search = play(lambda job, slot: MEMORY, trials=1, divides=why != "no parts")
    search.launcher.divisible = why != "indivisible"
    if why == "policy":
        search.policy = OnFailure(out_of_memory="end")
    list(search.events())
    assert search.launcher.jobs == [(0, 0, 1)]
    assert search.study.told[0] == MEMORY


def test_a_slot_that_fails_while_others_do_not_is_taken_out_of_service(play: Callable[..., Play]) -> None:
    turn = iter(range(100))
    search = play(
        lambda job, slot: Outcome(Ending.FAILED, f"error {next(turn)}") if slot == 1 else FINE, slots=2, trials=12
    )
    events = list(search.events())
    (retired,) = [event for event in events if isinstance(event, Retired)]
    assert retired.slot == 1
    assert sum(slot == 1 for _, slot, _ in search.launcher.jobs) == 3
    assert sum(trial.ending is Ending.COMPLETE for trial in search.history.trials.values()) == 9


def test_failures_alike_in_one_slot_take_it_out_while_others_still_train(play: Callable[..., Play]) -> None:
    def script(job: Job, slot: int) -> Outcome | str:
        if slot == 1:
            return FAILED
        return "silent" if search.launcher.clock[0] < 8 else FINE

    search = play(script, slots=2, trials=6)
    events = list(search.events())
    (retired,) = [event for event in events if isinstance(event, Retired)]
    assert retired == Retired(1, "3 trials in a row failed alike here: RuntimeError: no")
    assert len(search.history.ended) == 6


def test_failures_alike_everywhere_stop_the_study(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: FAILED, slots=2, trials=50)
    with pytest.raises(RepeatedFailure, match="trials in a row failed alike: RuntimeError: no"):
        list(search.events())
    assert len(search.history.ended) <= 4


def test_the_last_slot_stays_in_service(play: Callable[..., Play]) -> None:
    turn = iter(range(100))
    search = play(lambda job, slot: Outcome(Ending.FAILED, f"error {next(turn)}"), slots=1, trials=8)
    assert not [event for event in search.events() if isinstance(event, Retired)]
    assert len(search.history.ended) == 8


def test_a_trial_that_measures_nothing_for_far_too_long_is_ended_and_tried_again(play: Callable[..., Play]) -> None:
    def script(job: Job, slot: int) -> Outcome | str:
        return "silent" if job.number == 1 and not search.launcher.ended else FINE

    search = play(script, trials=2)
    search.launcher.wait = _ending(search.launcher)  # type: ignore[method-assign]
    list(search.events())
    (setback,) = search.history.trials[1].setbacks
    assert setback.ending is Ending.HUNG
    assert "no measurement for 5 min" in setback.reason
    assert "0001.log" in setback.reason
    assert search.history.trials[1].ending is Ending.COMPLETE


def _ending(launcher: Scripted) -> Callable[[float | None], Iterator[Happening]]:
    """What was ended as hung finishes so, once."""
    wait = launcher.wait

    def ending(timeout: float | None) -> Iterator[Happening]:
        for number in [number for number in launcher.ended if number in launcher.taken]:
            del launcher.taken[number]
            yield Finished(number, launcher.ended[number], 1.0)
            launcher.ended[-1] = launcher.ended.pop(number)
            return
        yield from wait(timeout)

    return ending


def test_a_machine_that_stood_still_is_no_hang(play: Callable[..., Play]) -> None:
    def script(job: Job, slot: int) -> Outcome | str:
        clock = search.launcher.clock
        if job.number == 1 and clock[0] < 1000:
            clock[0] += 1000.0  # asleep
            return "silent"
        return FINE

    search = play(script, trials=2)
    list(search.events())
    assert not search.launcher.ended
    assert search.history.trials[1].ending is Ending.COMPLETE


def test_without_anything_known_of_its_pace_nothing_hangs(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: "silent" if search.launcher.clock[0] < 5000 else FINE, trials=1)
    list(search.events())
    assert not search.history.trials[0].setbacks


def test_memory_that_does_not_suffice_says_nothing_of_a_slot(play: Callable[..., Play]) -> None:
    slots = Slots(3)
    for _ in range(2):
        assert slots.ended(1, FAILED) is None
        assert slots.ended(0, MEMORY) is None
    assert slots.ended(1, FAILED) is None  # nothing has gone well elsewhere
    slots.ended(0, FINE)
    slots.ended(1, MEMORY)
    assert slots.ended(1, FAILED) == "4 trials in a row did not end well here while others did elsewhere"


def test_a_good_ending_clears_a_slot_and_a_reason() -> None:
    slots, alike = Slots(2), Alike(2)
    for _ in range(5):
        assert slots.ended(1, FAILED) is None
        assert alike.ended(1, FAILED, elsewhere=False) is None
        slots.ended(1, FINE)
        alike.ended(1, FINE, elsewhere=False)
        slots.ended(0, FINE)


def test_what_was_fine_before_a_row_of_failures_does_not_speak_against_the_slot() -> None:
    slots = Slots(2)
    slots.ended(1, FAILED)
    slots.ended(0, FINE)
    slots.ended(1, FINE)
    assert slots.ended(1, FAILED) is None
    assert slots.ended(1, FAILED) is None


def test_reasons_that_differ_by_path_or_address_alone_are_alike() -> None:
    alike = Alike(3)
    for number in range(2):
        reason = f"FileNotFoundError: no '/studies/x/trials/{number:04d}/part' in <Data at 0x7f{number}>"
        assert alike.ended(0, Outcome(Ending.FAILED, reason), elsewhere=False) is None
    with pytest.raises(RepeatedFailure):
        alike.ended(0, Outcome(Ending.FAILED, reason), elsewhere=False)


def test_hangs_are_alike_however_long_they_took() -> None:
    alike = Alike(2)
    alike.ended(0, Outcome(Ending.HUNG, "no measurement for 5 min"), elsewhere=False)
    with pytest.raises(RepeatedFailure):
        alike.ended(0, Outcome(Ending.HUNG, "no measurement for 9 min"), elsewhere=False)


def test_a_trial_that_came_further_since_has_all_its_tries_again(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: KILLED, trials=1)
    search.launcher.wait = _creeping(search.launcher)  # type: ignore[method-assign]
    list(search.events())
    trial = search.history.trials[0]
    assert (trial.ending, len(trial.setbacks)) == (Ending.COMPLETE, 6)
    assert search.study.told[0] == FINE


def _creeping(launcher: Scripted) -> Callable[[float | None], Iterator[Happening]]:
    """A trial that measures once more in each try before it is killed, until it has measured seven times."""
    tries = iter(range(1, 100))

    def creeping(timeout: float | None) -> Iterator[Happening]:
        launcher.clock[0] += 1.0
        for number in list(launcher.taken):
            progress = next(tries)
            yield Report(number, Measurement(progress, {"loss": 1.0}), 1.0, 10)
            del launcher.taken[number]
            yield Finished(number, FINE if progress == 7 else KILLED, 1.0)

    return creeping


def test_time_that_a_killed_trial_could_not_report_is_on_record(play: Callable[..., Play]) -> None:
    def script(job: Job, slot: int) -> Outcome | str:
        return KILLED if search.launcher.clock[0] == 8.0 else "silent" if search.launcher.clock[0] < 8 else FINE

    search = play(script, trials=1)
    list(search.events())
    assert search.history.trials[0].seconds == 9.0  # eight until it was killed, one after


def test_nothing_is_spun_on_while_leaving(play: Callable[..., Play]) -> None:
    def script(job: Job, slot: int) -> Outcome | str:
        if job.number == 0:
            return KILLED
        return "silent" if search.launcher.clock[0] < 50 else FINE

    search = play(script, slots=2, trials=2)
    search.leave = lambda: search.launcher.clock[0] >= 1
    list(search.events())
    assert search.launcher.waits[5:] == [1.0] * len(search.launcher.waits[5:])


def test_a_trial_that_was_stopped_stays_so_on_a_full_disk(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: FINE, trials=1)
    search.launcher.disk_full = True
    stopped = Outcome(Ending.STOPPED, "place 3 of 5")
    search.study.report = lambda *said, **known: stopped  # type: ignore[method-assign]
    list(search.events())
    assert search.study.told[0] == stopped


def test_a_full_disk_sets_the_trial_aside_and_stops_the_search(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: Outcome(Ending.FAILED, "OSError: No space left on device"))
    search.launcher.disk_full = True
    with pytest.raises(DiskFull, match=r"once there is room, resume"):
        list(search.events())
    assert search.history.trials[0].state == "interrupted"
    assert not search.study.told


@pytest.mark.parametrize(
    ("budget", "rates", "words"),
    [
        (Budget(seconds=6.0), Rates(), "its budget of 6.0 s is spent"),
        (Budget(gpu_hours=12 / 3600), Rates(gpus_per_slot=1.0), "slot-hours is spent"),
        (Budget(gpu_hours=3 / 3600), Rates(gpus_per_slot=0.25), "slot-hours is spent"),
        (Budget(cost=2.4, price_per_gpu_hour=720.0), Rates(price_per_gpu_hour=720.0), "at 720 an hour is spent"),
    ],
)
def test_a_budget_stops_within_one_measurement_and_counts_over_all_runs(
    play: Callable[..., Play], budget: Budget, rates: Rates, words: str
) -> None:
    search = play(lambda job, slot: FINE, slots=2, trials=100)
    clock = search.launcher.clock

    def run() -> Meter:
        meter = Meter(budget, rates, search.history, lambda: clock[0])
        search.meter, search.leave = meter, lambda: bool(meter.reached())
        list(search.events())
        return meter

    meter = run()
    assert words in meter.reached()
    slot_seconds = sum(trial.seconds for trial in search.history.trials.values())
    assert slot_seconds == 12.0  # two slots for six seconds, at a second a trial
    before = len(search.history.trials)
    search.study = Numbered(asked=before)
    if budget.seconds is None:  # wall time is in the run's last line, which a session writes
        run()
        assert len(search.history.trials) == before
    assert sum(isinstance(trial.ending, Ending) for trial in search.history.trials.values()) == before


def test_an_event_of_each_kind_is_read_back_as_it_was_written(play: Callable[..., Play]) -> None:
    search = play(lambda job, slot: MEMORY if job.divide == 1 else FINE, trials=1)
    events = list(search.events())
    assert [type(event) for event in events[:2]] == [Started, Interrupted]
    assert isinstance(events[-1], Ended)
    trial = search.history.trials[0]
    assert trial.setbacks == [MEMORY]
    assert trial.divide == 2
