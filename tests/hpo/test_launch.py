"""The contract of launchers, held by each of them; and what processes alone can show."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from hpo.errors import HpoError
from hpo.launch import Begun, Finished, Job, Launcher, Report
from hpo.launch.devices import Layout, gpus, layout
from hpo.launch.inline import Inline
from hpo.launch.processes import Processes
from hpo.objective import load
from hpo.operation import Launch
from hpo.trials import Ending

RUNGS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))


def processes(workplace: Path, slots: int = 2) -> Processes:
    return Processes("objective.py:train", workplace, slots=slots, threads=1, gpus=(), log=workplace / "launch.log")


@pytest.fixture(params=["inline", "processes"])
def launcher(request: pytest.FixtureRequest, workplace: Path) -> Iterator[Launcher]:
    made: Launcher = (
        Inline(load("objective.py:train", workplace)) if request.param == "inline" else processes(workplace)
    )
    yield made
    made.close()


def job(number: int = 0, **settings: object) -> Job:
    values = {"learning_rate": 3e-3, "tokens": 90, **settings}
    return Job(number, values, seed=4, rungs=RUNGS, directory=Path(f"{number}"), log=Path(f"{number}.log"))


def drive(launcher: Launcher, stop_at: int | None = None) -> list[Report | Finished]:
    """Everything the jobs say; told to stop at one progress."""
    happened: list[Report | Finished] = []
    while len(launcher.free) < launcher.slots:
        for item in launcher.wait(5.0):
            if isinstance(item, Begun):
                continue
            happened.append(item)
            if isinstance(item, Report):
                launcher.answer(item.number, go_on=item.measurement.progress != stop_at)
    return happened


class TestContract:
    def test_measurements_arrive_in_order_at_the_rungs_and_one_finish_ends_them(self, launcher: Launcher) -> None:
        launcher.start(job(), 0)
        *reports, last = drive(launcher)
        assert [r.measurement.progress for r in reports if isinstance(r, Report)] == [10, 30, 90]
        assert isinstance(last, Finished)
        assert last.outcome.ending is Ending.COMPLETE
        assert last.seconds >= 0

    def test_a_report_says_the_length_and_which_is_final(self, launcher: Launcher) -> None:
        launcher.start(job(), 0)
        reports = [item for item in drive(launcher) if isinstance(item, Report)]
        assert [(r.length, r.final) for r in reports] == [(90, False), (90, False), (90, True)]
        assert {r.warmup for r in reports} == {0}  # this objective says nothing of one

    def test_a_report_says_the_warm_up_and_rungs_in_it_are_measured(self, workplace: Path, launcher: Launcher) -> None:
        with (workplace / "objective.py").open("a") as file:
            file.write("\ndef warmup(config):\n    return config.tokens // 5\n")
        if isinstance(launcher, Inline):  # it was given the objective as it was; the other forks at its first job
            launcher = Inline(load("objective.py:train", workplace))
        launcher.start(job(), 0)
        reports = [item for item in drive(launcher) if isinstance(item, Report)]
        assert [(r.measurement.progress, r.warmup) for r in reports] == [(10, 18), (30, 18), (90, 18)]

    def test_a_job_told_to_stop_measures_no_more(self, launcher: Launcher) -> None:
        launcher.start(job(), 0)
        happened = drive(launcher, stop_at=30)
        assert [r.measurement.progress for r in happened if isinstance(r, Report)] == [10, 30]
        assert happened[-1].outcome.ending is Ending.COMPLETE  # type: ignore[union-attr]

    def test_the_seed_reaches_the_trial(self, launcher: Launcher) -> None:
        launcher.start(job(), 0)
        (first, *_) = drive(launcher)
        assert isinstance(first, Report)
        assert first.measurement.metrics["seed"] == 4

    def test_a_slot_is_taken_while_its_job_runs_and_free_after(self, launcher: Launcher) -> None:
        assert launcher.free == list(range(launcher.slots))
        launcher.start(job(), 0)
        assert 0 not in launcher.free
        drive(launcher)
        assert launcher.free == list(range(launcher.slots))

    def test_an_exception_is_a_failure_with_its_own_words(self, launcher: Launcher) -> None:
        launcher.start(job(misbehave="raise", misbehave_above=0.0), 0)
        (finished,) = drive(launcher)
        assert isinstance(finished, Finished)
        assert finished.outcome.ending is Ending.FAILED
        assert finished.outcome.reason == "RuntimeError: this configuration does not work"

    def test_running_out_of_memory_is_named_so(self, launcher: Launcher) -> None:
        launcher.start(job(misbehave="memory", misbehave_above=0.0), 0)
        (finished,) = drive(launcher)
        assert isinstance(finished, Finished)
        assert finished.outcome.ending is Ending.OUT_OF_MEMORY

    def test_a_configuration_the_objective_refuses_fails_in_its_words(self, launcher: Launcher) -> None:
        launcher.start(job(**{"model.heads": 3}), 0)
        (finished,) = drive(launcher)
        assert isinstance(finished, Finished)
        assert "model.width 64 is not divisible by model.heads 3" in finished.outcome.reason

    def test_a_trial_that_ends_the_program_is_a_failure_that_says_so(self, launcher: Launcher) -> None:
        launcher.start(job(misbehave="sys.exit", misbehave_above=0.0), 0)
        (finished,) = drive(launcher)
        assert isinstance(finished, Finished)
        assert (finished.outcome.ending, finished.outcome.reason) == (Ending.FAILED, "the trial called sys.exit(4)")

    def test_progress_that_does_not_increase_is_a_failure(self, launcher: Launcher) -> None:
        launcher.start(job(misbehave="decrease", misbehave_above=0.0), 0)
        *_, finished = drive(launcher)
        assert isinstance(finished, Finished)
        assert finished.outcome.reason == "ValueError: progress must increase from one measurement to the next"

    def test_a_companion_gives_back_what_it_returned(self, launcher: Launcher) -> None:
        assert launcher.call("prepare", job().settings, Path("p.log"))["dataset"] == "made"

    def test_a_companion_that_refuses_does_so_in_its_words(self, launcher: Launcher) -> None:
        with pytest.raises(HpoError, match=r"^data.source: no file 'x.txt'"):
            launcher.call("prepare", job(misbehave="data").settings, Path("p.log"))


@pytest.fixture
def slots(workplace: Path) -> Iterator[Processes]:
    made = processes(workplace)
    yield made
    made.close()


def test_a_killed_trial_is_named_so_and_the_other_slot_goes_on(slots: Processes) -> None:
    slots.start(job(0, misbehave="kill", misbehave_above=0.0), 0)
    slots.start(job(1), 1)
    endings = {item.number: item.outcome for item in drive(slots) if isinstance(item, Finished)}
    assert endings[0].ending is Ending.KILLED
    assert endings[0].reason.startswith("killed by SIGKILL")
    assert endings[1].ending is Ending.COMPLETE


def test_a_process_that_ends_without_a_word_counts_as_killed(slots: Processes) -> None:
    slots.start(job(misbehave="exit", misbehave_above=0.0), 0)
    (finished,) = drive(slots)
    assert isinstance(finished, Finished)
    assert (finished.outcome.ending, finished.outcome.reason) == (
        Ending.KILLED,
        "its process ended by itself with exit code 3",
    )


def test_what_a_trial_prints_is_in_its_own_log(slots: Processes, workplace: Path) -> None:
    slots.start(job(0), 0)
    slots.start(job(1, tokens=9000), 1)
    drive(slots)
    assert (workplace / "0.log").read_text().splitlines() == ["training to 10", "training to 30", "training to 90"]
    assert "training to 9000" in (workplace / "1.log").read_text()


def test_a_failure_leaves_its_traceback_in_the_log(slots: Processes, workplace: Path) -> None:
    slots.start(job(misbehave="raise", misbehave_above=0.0), 0)
    drive(slots)
    assert "Traceback" in (workplace / "0.log").read_text()


def test_an_objective_that_cannot_be_loaded_is_one_clear_error(workplace: Path) -> None:
    (workplace / "objective.py").write_text("import nowhere_to_be_found")
    with contextlib.closing(processes(workplace)) as slots, pytest.raises(HpoError, match="nowhere_to_be_found"):
        slots.call("prepare", {}, Path("p.log"))


def test_nothing_is_left_running_after_close(workplace: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    slots = processes(workplace)
    slots.start(job(gate="never"), 0)
    slots.start(job(1, gate="never"), 1)
    children = set(psutil.Process().children(recursive=True)) - before
    assert len(children) == 3  # the server and two jobs
    slots.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_jobs_end_when_their_coordinator_is_killed(workplace: Path) -> None:
    read, write = os.pipe()
    coordinator = os.fork()
    if coordinator == 0:
        slots = processes(workplace)
        slots.start(job(gate="never"), 0)
        os.write(write, " ".join(str(p.pid) for p in psutil.Process().children(recursive=True)).encode())
        time.sleep(60)
        os._exit(0)
    pids = [int(pid) for pid in os.read(read, 1000).split()]
    children = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert len(children) >= 2
    os.kill(coordinator, signal.SIGKILL)
    os.waitpid(coordinator, 0)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_slots_are_one_a_gpu_else_by_cores() -> None:
    assert layout(Launch(), (), 8) == Layout(8, 1, ())
    assert layout(Launch(threads=4), (), 8) == Layout(2, 4, ())
    assert layout(Launch(slots=2), (), 8) == Layout(2, 4, ())
    assert layout(Launch(), ("0", "1"), 8) == Layout(2, 4, ("0", "1"))
    assert layout(Launch(trials_per_gpu=3), ("0",), 2) == Layout(3, 1, ("0",))


def test_visible_devices_are_respected() -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": "2,GPU-abc"}) == ("2", "GPU-abc")
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()


def test_each_slot_sees_its_own_gpu(workplace: Path) -> None:
    (workplace / "objective.py").write_text(
        "import os\nfrom hpo.trials import Measurement\n"
        "def train(config: dict):\n    yield Measurement(1, {'gpu': float(os.environ['CUDA_VISIBLE_DEVICES'])})\n"
    )
    slots = Processes(
        "objective.py:train", workplace, slots=4, threads=1, gpus=("5", "7"), log=workplace / "launch.log"
    )
    for number in range(4):
        slots.start(Job(number, {}, 0, (), Path(f"{number}"), Path(f"{number}.log")), number)
    seen = {item.number: item.measurement.metrics["gpu"] for item in drive(slots) if isinstance(item, Report)}
    slots.close()
    assert seen == {0: 5, 1: 7, 2: 5, 3: 7}
