"""What happens to real trial processes: killed, hung, out of memory, left behind by their server or coordinator."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpo.avoidance import expectation
from hpo.errors import HpoError
from hpo.folder import StudyFolder
from hpo.journal import History, Journal
from hpo.launch import Begun, Finished, Happening, Job
from hpo.launch.processes import Processes
from hpo.operation import OnFailure
from hpo.search import Search
from hpo.study import Study, plan
from hpo.trials import Ending, Outcome

OBJECTIVE = '''
import time
from dataclasses import dataclass
from pathlib import Path
from hpo.trials import Measurement

@dataclass(frozen=True, kw_only=True)
class Config:
    batch_size: int = 1
    does: str = "train"

class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""

def length(config):
    return 100

def train(config: Config, *, seed, rungs, directory, divide):
    (directory / "pid").write_text(str(__import__("os").getpid()))
    for rung in rungs:
        if config.does == "hang":
            wait_for_nothing()
        if config.does == "fill":
            held = [bytearray(64 * 2**20) for _ in range(100)]
        if config.does == "cpu allocator":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")
        if config.does == "write":
            raise OSError(28, "No space left on device")
        if config.batch_size / divide > 16:
            error = OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            error.divisible = config.batch_size > divide and config.does != "indivisible"
            raise error
        yield Measurement(rung, {"loss": 1 / config.batch_size, "divide": float(divide)})

def wait_for_nothing():
    time.sleep(600)
'''

SWEEP = """\
objective: objective.py:train
metric: {name: loss, direction: minimize}
space:
  batch_size: {low: 1, high: 512, log: true}
baseline: {batch_size: 1}
search: {trials: 40, sampler: {name: tpe, n_startup_trials: 8}, pruner: none, seed: 4, rungs: [0.5, 1.0]}
on_failure: {out_of_memory: end}
track: {}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slots(place: Path) -> Iterator[Callable[..., Processes]]:
    opened: list[Processes] = []

    def open_(count: int = 1, memory_bytes: int | None = None) -> Processes:
        opened.append(
            Processes(
                "objective.py:train", place, slots=count, threads=1, gpus=(), log=place / "launch.log",
                memory_bytes=memory_bytes,
            )
        )  # fmt: skip
        return opened[-1]

    yield open_
    for launcher in opened:
        launcher.close()


def job(place: Path, number: int = 0, **settings: object) -> Job:
    return Job(number, settings, 0, (50, 100), place / f"{number}", place / f"{number}.log")


def finish(launcher: Processes) -> list[Finished]:
    ended: list[Finished] = []
    while len(launcher.free) < launcher.slots:
        for happened in launcher.wait(1.0):
            if isinstance(happened, Finished):
                ended.append(happened)
            elif not isinstance(happened, Begun):
                launcher.answer(happened.number, go_on=True)
    return ended


def begun(launcher: Processes) -> None:
    """Wait until a job is inside its trial function."""
    seen: list[Happening] = []
    while not any(isinstance(happened, Begun) for happened in seen):
        seen += launcher.wait(1.0)
    time.sleep(0.2)


def gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_a_hung_trial_leaves_its_stack_in_its_log(place: Path, slots: Callable[..., Processes]) -> None:
    launcher = slots()
    launcher.start(job(place, does="hang"), 0)
    begun(launcher)
    launcher.end(0, Outcome(Ending.HUNG, "no measurement"))
    (finished,) = finish(launcher)
    assert finished.outcome == Outcome(Ending.HUNG, "no measurement")
    assert "in wait_for_nothing" in (place / "0.log").read_text()


def test_a_stopped_process_is_ended_too(place: Path, slots: Callable[..., Processes]) -> None:
    launcher = slots()
    launcher.start(job(place, does="hang"), 0)
    begun(launcher)
    os.kill(int((place / "0" / "pid").read_text()), signal.SIGSTOP)
    launcher.end(0, Outcome(Ending.HUNG, "no measurement"))
    assert finish(launcher)[0].outcome.ending is Ending.HUNG


def test_a_limit_of_the_hosts_memory_ends_the_trial_and_nothing_else(
    place: Path, slots: Callable[..., Processes]
) -> None:
    launcher = slots(memory_bytes=2**30)
    launcher.start(job(place, does="fill"), 0)
    (finished,) = finish(launcher)
    assert finished.outcome.ending is Ending.OUT_OF_MEMORY
    assert finished.divisible
    launcher.start(job(place, 1), 0)
    assert finish(launcher)[0].outcome.ending is Ending.COMPLETE


def test_torchs_words_for_exhausted_memory_are_understood(place: Path, slots: Callable[..., Processes]) -> None:
    launcher = slots()
    launcher.start(job(place, does="cpu allocator"), 0)
    assert finish(launcher)[0].outcome.ending is Ending.OUT_OF_MEMORY
    launcher.start(job(place, 1, batch_size=64), 0)
    (finished,) = finish(launcher)
    assert (finished.outcome.ending, finished.divisible) == (Ending.OUT_OF_MEMORY, True)
    launcher.start(job(place, 2, batch_size=64, does="indivisible"), 0)
    assert not finish(launcher)[0].divisible


def test_a_trial_that_cannot_write_says_so(place: Path, slots: Callable[..., Processes]) -> None:
    launcher = slots()
    launcher.start(job(place, does="write"), 0)
    assert finish(launcher)[0].disk_full


def test_when_the_server_dies_its_trials_die_with_it_and_another_takes_its_place(
    place: Path, slots: Callable[..., Processes]
) -> None:
    launcher = slots(2)
    launcher.start(job(place, does="hang"), 0)
    begun(launcher)
    pid = int((place / "0" / "pid").read_text())
    os.kill(launcher._server.pid, signal.SIGKILL)
    (finished,) = finish(launcher)
    assert finished.outcome == Outcome(Ending.KILLED, "the process that starts trials has died")
    assert gone(pid)
    launcher.start(job(place, 1), 1)
    assert finish(launcher)[0].outcome.ending is Ending.COMPLETE


def test_a_server_that_keeps_dying_ends_the_search(place: Path, slots: Callable[..., Processes]) -> None:
    launcher = slots()

    def kill_the_server(number: int) -> None:
        launcher.start(job(place, number, does="hang"), 0)
        begun(launcher)
        os.kill(launcher._server.pid, signal.SIGKILL)
        finish(launcher)

    kill_the_server(0)
    kill_the_server(1)
    with pytest.raises(HpoError, match="has died 3 times"):
        kill_the_server(2)


def search(place: Path, launcher: Processes, changes: tuple[str, str] = ("", "")) -> History:
    path = place / "sweep.yaml"
    path.write_text(SWEEP.replace(*changes))
    planned = plan(path.read_text(), path)
    folder = StudyFolder(place / "study")
    folder.root.mkdir()
    study = Study(planned, folder, History(), 1)
    with Journal(folder.journal, time.time) as journal:
        sweep = planned.sweep
        list(
            Search(
                study, launcher, journal, folder, History(), sweep.search.trials, lambda: False, sweep.on_failure,
                planned.objective.divides,
            ).events()
        )  # fmt: skip
    return History.read(folder.journal)


def test_the_sampler_learns_where_memory_ends(place: Path, slots: Callable[..., Processes]) -> None:
    trials = search(place, slots()).trials
    fits = [int(str(trial.parameters["batch_size"])) <= 16 for trial in trials.values()]
    assert [trial.ending is Ending.OUT_OF_MEMORY for trial in trials.values()] == [not fit for fit in fits]
    # Larger is better as far as it fits, so that nothing but the endings speaks for smaller ones. Four ninths fit.
    assert sum(fits[-20:]) >= 18
    assert max(int(str(trial.parameters["batch_size"])) for trial in trials.values() if trial.value is not None) >= 14


def test_what_does_not_fit_whole_is_trained_in_parts(place: Path, slots: Callable[..., Processes]) -> None:
    trials = search(place, slots(2), ("out_of_memory: end", "out_of_memory: divide")).trials
    assert {trial.ending for trial in trials.values()} == {Ending.COMPLETE}
    for trial in trials.values():
        size = int(str(trial.parameters["batch_size"]))
        smallest = next(parts for parts in (1, 2, 4, 8, 16, 32) if size / parts <= 16)
        assert trial.metrics["divide"] == trial.divide == smallest
        assert len(trial.setbacks) == smallest.bit_length() - 1


def test_on_failure_is_read_from_the_sweep(place: Path) -> None:
    path = place / "sweep.yaml"
    assert plan(path.read_text(), path).sweep.on_failure == OnFailure(out_of_memory="end")


def test_in_a_conditional_space_too_what_does_not_fit_is_expected_not_to() -> None:
    space: dict[str, BaseDistribution] = {
        "tuning": CategoricalDistribution(["full", "lora"]),
        "batch_size": IntDistribution(1, 512, log=True),
        "rank": IntDistribution(1, 64),
    }
    trials = []
    for number in range(24):
        size, lora = 2 ** (number % 8), number % 2
        values: dict[str, object] = {"tuning": "lora", "rank": 8} if lora else {"tuning": "full"}
        values["batch_size"] = size
        chosen = {name: space[name] for name in values}
        told = {"constraints:memory": 1.0 if size > (64 if lora else 16) else 0.0}
        trials.append(create_trial(state=TrialState.PRUNED, params=values, distributions=chosen, system_attrs=told))
    fits = expectation(trials, space)
    assert fits({"tuning": "lora", "rank": 8, "batch_size": 32})
    assert not fits({"tuning": "full", "batch_size": 64})
    assert not fits({"tuning": "lora", "rank": 8, "batch_size": 256})
