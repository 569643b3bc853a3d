"""Several coordinators on one study, through a real PostgreSQL server that the tests start."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord
from hpo.joining import join
from hpo.journal import History, JournalError, StudyState, lines
from hpo.launch.inline import Inline
from hpo.ledger import Entry, Ledger, Post, Unreachable
from hpo.membership import enter, refresh, remove
from hpo.plan import Plan
from hpo.run import create
from hpo.search import Search
from hpo.sharing import SharedJournal
from hpo.study import Study
from hpo.track.turns import turn
from hpo.trials import Ended, Ending, Event, Interrupted, Progressed, Started

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
from postgres import Server, binaries  # noqa: E402

HPO = str(Path(sys.executable).with_name("hpo"))
TRIALS = 8


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    running = Server()
    yield running
    running.close()


SWEEP = """\
objective: curve.py:train
metric: {name: validation/loss, direction: minimize}
storage: {address: ADDRESS, lost_after: LOST}
space:
  learning_rate: {low: 1e-5, high: 1e-1, log: true}
  dropout: {low: 0, high: 0.5}
fixed: {tokens: 100, pace: 0}
baseline: {learning_rate: 1e-4}
search: {trials: 8, seed: 5, pruner: none, rungs: [1/4, 2/4, 3/4, 1.0]}
track: {}
"""


@pytest.fixture
def sweep(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that names the server; its study's name is free in the database."""
    shutil.copy(TESTS / "faults" / "curve.py", tmp_path)
    path = tmp_path / f"s{time.monotonic_ns()}.yaml"
    path.write_text(SWEEP.replace("ADDRESS", server.address).replace("LOST", "2s"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPO_STUDIES", raising=False)
    return path


class Place:
    """One coordinator, searching inline; its events are taken one by one."""

    def __init__(self, made: tuple[Plan, StudyFolder], lost_after: float = 30.0) -> None:
        self.planned, self.folder = made
        self.notes: list[str] = []
        self.leaving = self.closed = False
        enter(self.folder, {})
        history = History.read(self.folder.journal)
        self.study = Study(self.planned, self.folder, history, 25)
        self.journal = SharedJournal(self.folder, self.study, lost_after, patience_seconds=20)
        self.journal.attend(lambda: self.leaving, self.notes.append)
        self.journal.__enter__()
        launcher = Inline(self.planned.objective)
        search = Search(
            self.study, launcher, self.journal, self.folder, history, TRIALS, lambda: self.leaving
        )  # fmt: skip
        self.events = search.events()

    def until(self, kind: type[Event]) -> Event:
        return next(event for event in self.events if isinstance(event, kind))

    def finish(self) -> list[Event]:
        return list(self.events)

    def leave(self) -> None:
        """Set aside what runs, as after Ctrl-C."""
        self.leaving = True
        self.finish()
        self.close()

    def freeze(self) -> None:
        """Give no more signs of life."""
        self.journal._heart.stop()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.journal.__exit__()

    @property
    def history(self) -> History:
        return History.read(self.folder.journal)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [line for _, line in lines(self.folder.journal) if "line" in line]


Begin = Callable[..., Place]


@pytest.fixture
def begin(sweep: Path, server: Server) -> Iterator[Begin]:
    """Coordinators: the first runs the sweep, each further one joins it."""
    places: list[Place] = []

    def make(lost_after: float = 30.0) -> Place:
        studies = Path(f"studies-{len(places)}")
        if not places:
            made = create(sweep, studies, None, [])
        else:
            made = join(sweep.stem, server.address, studies)
        places.append(Place(made, lost_after))
        return places[-1]

    yield make
    for place in places:
        place.close()


def once(history: History, trials: int = TRIALS) -> None:
    """Every trial once, complete, its rungs in order and as an undisturbed one has them."""
    assert sorted(history.trials) == list(range(trials))
    for trial in history.trials.values():
        assert trial.ending is Ending.COMPLETE
        assert [m.progress for m in trial.measurements] == [25, 50, 75, 100]
        assert trial.value == trial.measurements[-1].metrics["validation/loss"]


def test_two_coordinators_share_the_trials_and_have_the_same_record(begin: Begin) -> None:
    one, two = begin(), begin()
    while len(one.history.ended) < TRIALS // 2:
        next(one.events), next(two.events)
    one.leave()
    two.finish()
    once(two.history)
    assert one.lines == two.lines[: len(one.lines)]
    by = Counter(trial.place for trial in two.history.trials.values())
    assert set(by) == {one.journal.place, two.journal.place}


def test_what_runs_elsewhere_is_running_in_the_sampler_s_eyes(begin: Begin) -> None:
    one, two = begin(), begin()
    one.until(Started)
    two.until(Started)
    states = {trial.number: trial.state.name for trial in two.study.mirror.trials}
    assert states == {0: "RUNNING", 1: "RUNNING"}
    one.until(Ended)
    two.until(Progressed)
    assert two.study.mirror.trials[0].state.name == "COMPLETE"


def test_trials_of_a_dead_coordinator_are_taken_over_from_their_checkpoint(begin: Begin) -> None:
    dead, alive = begin(), begin(lost_after=0.4)
    dead.until(Progressed)
    dead.freeze()
    time.sleep(0.5)
    alive.finish()
    once(alive.history)
    taken = alive.history.trials[0]
    assert taken.place == alive.journal.place
    assert "no sign of life" in taken.setbacks[0].reason
    assert (alive.folder.trial(0) / "checkpoint.json").exists()
    assert not any("begins from its start" in note for note in alive.notes)


def test_a_coordinator_that_was_only_frozen_drops_what_was_taken(begin: Begin) -> None:
    frozen, alive = begin(), begin(lost_after=0.4)
    frozen.until(Progressed)
    frozen.freeze()
    time.sleep(0.5)
    alive.until(Started)
    dropped = frozen.until(Interrupted)
    frozen.leave()
    alive.finish()
    once(alive.history)
    assert isinstance(dropped, Interrupted)
    assert dropped.number == 0
    assert "was taken over" in frozen.notes[0]
    assert [line["event"] for line in alive.lines if line["trial"] == 0].count("interrupted") == 1
    assert frozen.lines == alive.lines[: len(frozen.lines)]


def test_a_trial_is_not_taken_from_one_that_lives(begin: Begin) -> None:
    slow, other = begin(lost_after=0.5), begin(lost_after=0.5)
    slow.until(Progressed)
    time.sleep(1.0)
    while len(other.history.ended) < TRIALS - 1:
        event = next(other.events)
        assert not (isinstance(event, Started) and event.assignment.number == 0)
    slow.finish()
    once(slow.history)


def test_what_somebody_set_aside_is_taken_up_by_another(begin: Begin) -> None:
    leaving, other = begin(), begin()
    leaving.until(Progressed)
    leaving.leave()
    other.finish()
    once(other.history)
    assert other.history.trials[0].setbacks == []


def test_a_database_that_is_down_is_waited_for(begin: Begin, server: Server) -> None:
    place = begin()
    place.until(Progressed)
    server.stop()

    def note(text: str) -> None:
        place.notes.append(text)
        if "Trying again" in text and len(place.notes) == 2:
            server.start()

    place.journal.attend(lambda: False, note)
    place.finish()
    once(place.history)
    assert "does not answer" in place.notes[0]
    assert "answers again" in place.notes[-1]


def test_a_claim_that_did_not_come_through_is_made_again(begin: Begin, server: Server) -> None:
    place, other = begin(), begin()
    append, failed = place.journal._ledger.append, []

    def fail_once(study: str, posts: list[object]) -> None:
        if not failed and '"started"' in posts[0].line:  # type: ignore[attr-defined]
            failed.append(True)
            server.stop()
            server.start()
            other.until(Started)  # somebody else is quicker
        append(study, posts)  # type: ignore[arg-type]

    place.until(Ended)
    place.journal._ledger.append = fail_once  # type: ignore[method-assign,assignment]
    while len(place.history.ended) < TRIALS - 1:
        next(place.events)
    other.finish()
    assert failed
    place.finish()
    once(place.history)
    stored = place.study.mirror.trials
    assert [trial.params["learning_rate"] for trial in stored] == [
        trial.parameters["learning_rate"] for trial in other.history.trials.values()
    ]


def test_who_does_not_want_to_wait_for_the_database_loses_nothing(begin: Begin, server: Server) -> None:
    place = begin()
    place.until(Progressed)
    server.stop()
    place.leaving = True
    try:
        with pytest.raises(JournalError, match=r"does not answer.* Nothing is lost.*hpo resume"):
            place.finish()
    finally:
        server.start()
    place.close()
    again = Place((place.planned, place.folder))
    again.finish()
    again.close()
    once(again.history)


def test_a_folder_behind_the_database_catches_up(begin: Begin) -> None:
    one = begin()
    one.finish()
    content = one.folder.journal.read_text().splitlines(keepends=True)
    one.folder.journal.write_text("".join(content[:7]))
    enter(one.folder, {})
    once(one.history)


def test_lines_of_one_coordinator_alone_stay_here(begin: Begin) -> None:
    one, two = begin(), begin()
    one.journal.append(StudyState("running"))
    one.finish()
    two.finish()
    assert one.history.state == "running"
    assert two.history.state == "new"


def test_joining_again_goes_on_here_with_the_address_given(begin: Begin, sweep: Path, server: Server) -> None:
    one = begin()
    one.leave()
    address = server.address.replace("127.0.0.1", "localhost")
    _, folder = join(sweep.stem, address, one.folder.root.parent)
    assert folder == one.folder
    assert StudyRecord.read(folder).shared == {"address": address, "place": one.journal.place}


def test_what_is_known_here_is_shown_where_the_database_is_down(begin: Begin) -> None:
    one = begin()
    one.until(Ended)
    one.close()
    record = StudyRecord.read(one.folder)
    dead = {**(record.shared or {}), "address": "postgresql://hpo@127.0.0.1:1/postgres"}
    dataclasses.replace(record, shared=dead).write(one.folder)
    assert "does not answer: Connection refused. This is what is known here." in refresh(one.folder)
    record.write(one.folder)
    assert refresh(one.folder) == ""


def test_who_freezes_while_it_holds_a_study_lets_go_of_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.ledger._HELD_SECONDS", 0.5)
    frozen, other = Ledger(server.address), Ledger(server.address)
    study = frozen.add(Entry("frozen", "frozen", {})).id

    def hold() -> None:
        with frozen.held(study):
            frozen.append(study, [Post(1, "frozen", "{}")])
            with other.held(study):  # waits until the server has thrown the first out
                assert other.read(study, 0) == []
                other.append(study, [Post(1, "other", "{}")])
            frozen.append(study, [Post(2, "frozen", "{}")])

    with pytest.raises(Unreachable):
        hold()
    assert [post.place for post in other.read(study, 0)] == ["other"]
    frozen.close()
    other.close()


def test_one_coordinator_at_a_time_carries_a_study_to_a_tracker(begin: Begin) -> None:
    one, two = begin(), begin()
    server_ = "http://mlflow.example.org"
    with turn(one.folder, server_) as ones:
        assert ones()
        with turn(two.folder, server_) as twos, turn(two.folder, "sqlite:////own/mlflow.db") as own:
            assert not twos()
            assert own()
    with turn(two.folder, server_) as twos:
        until = time.monotonic() + 10  # the server takes a moment to see that the first has gone
        while not (its := twos()) and time.monotonic() < until:
            time.sleep(0.02)
        assert its


def test_a_name_in_use_is_refused(begin: Begin, sweep: Path) -> None:
    begin()
    with pytest.raises(UserError, match=r"already\. Join it: hpo join"):
        create(sweep, Path("elsewhere"), None, [])


def test_another_objective_is_refused(begin: Begin, sweep: Path, server: Server) -> None:
    begin()
    _, folder = join(sweep.stem, server.address, Path("elsewhere"))
    with pytest.raises(UserError, match="warmup is None there, 3 here"):
        enter(folder, {"warmup": 3})


def test_other_data_is_refused(begin: Begin, sweep: Path, server: Server) -> None:
    begin()
    _, folder = join(sweep.stem, server.address, Path("elsewhere"))
    record = StudyRecord.read(folder)
    record.facts["digest"] = "another"
    record.write(folder)
    with pytest.raises(UserError, match="digest None there, another here"):
        enter(folder, {})


def test_a_study_that_is_not_there_is_named(begin: Begin, sweep: Path, server: Server) -> None:
    begin()
    with pytest.raises(UserError, match=f"no study '{sweep.stem}x'.*Did you mean '{sweep.stem}'"):
        join(f"{sweep.stem}x", server.address, Path("elsewhere"))


def test_a_removed_study_is_not_made_again_by_who_still_has_it(begin: Begin, sweep: Path) -> None:
    one = begin()
    one.finish()
    one.close()
    remove(one.folder)
    with pytest.raises(UserError, match="was removed from"):
        enter(one.folder, {})


def test_a_study_in_use_is_not_removed(begin: Begin) -> None:
    one, _ = begin(), begin()
    with pytest.raises(UserError, match="is being run by process"):
        remove(one.folder)


GATED = """
import time
from pathlib import Path
import curve
from curve import METRICS, Config, length

def train(config: Config, *, seed, rungs, directory):
    for measurement in curve.train(config, seed=seed, rungs=rungs, directory=directory):
        yield measurement
        while not Path("gate").exists():
            time.sleep(0.02)
"""


class Shared:
    """Real `hpo` processes on one study; each in a folder of studies of its own.

    Each trial goes on after its first measurement when the gate is opened.
    """

    def __init__(self, sweep: Path, address: str, trials: int, pace: float) -> None:
        sweep.with_name("gated.py").write_text(GATED)
        text = sweep.read_text().replace("pace: 0", f"pace: {pace}").replace("curve.py:train", "gated.py:train")
        sweep.write_text(text)
        self._environment = os.environ | {"PYTHONPATH": str(sweep.parent)}
        self.name, self._address, self._sweep, self._trials = sweep.stem, address, sweep, trials
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> None:
        index = len(self.processes)
        command = ["run", self._sweep.name, f"--trials={self._trials}"]
        if index:
            command = ["join", self.name, "--storage", self._address]
        with Path(f"said-{index}.txt").open("wb") as said:
            command = [HPO, *command, "--studies", f"of-{index}", *options]
            self.processes.append(subprocess.Popen(command, stdout=said, stderr=said, env=self._environment))

    def history(self, index: int) -> History:
        return History.read(self.folder(index).journal)

    def folder(self, index: int) -> StudyFolder:
        return StudyFolder(Path(f"of-{index}") / self.name)

    def place(self, index: int) -> str:
        return (StudyRecord.read(self.folder(index)).shared or {})["place"]

    def running(self, index: int) -> list[int]:
        """Trials that this coordinator runs now and that have a checkpoint."""
        if not self.folder(index).journal.exists():
            return []
        trials = self.history(index).unfinished
        return [t.number for t in trials if t.place == self.place(index) and t.progress and not t.interrupted]

    def await_running(self, index: int) -> list[int]:
        until = time.monotonic() + 60
        while not (found := self.running(index)):
            assert time.monotonic() < until, Path(f"said-{index}.txt").read_text()
            assert self.processes[index].poll() is None, Path(f"said-{index}.txt").read_text()
            time.sleep(0.02)
        return found

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def share(sweep: Path, server: Server) -> Iterator[Callable[[int, float], Shared]]:
    made: list[Shared] = []

    def make(trials: int, pace: float) -> Shared:
        made.append(Shared(sweep, server.address, trials, pace))
        return made[-1]

    yield make
    for shared in made:
        shared.end()


def as_undisturbed(history: History, tmp_path: Path) -> None:
    """Every measurement is what the trial measures where nothing happens to it."""
    sys.path.insert(0, str(TESTS / "faults"))
    import curve

    for trial in history.trials.values():
        config = curve.Config(**{**trial.settings, "pace": 0.0})  # type: ignore[arg-type]
        directory = tmp_path / f"undisturbed-{trial.number}"
        directory.mkdir()
        alone = curve.train(config, seed=trial.seed, rungs=[25, 50, 75, 100], directory=directory)
        assert [dict(m.metrics) for m in trial.measurements] == [dict(m.metrics) for m in alone]


def test_the_trials_of_a_killed_coordinator_are_done_by_another(
    share: Callable[[int, float], Shared], tmp_path: Path
) -> None:
    shared = share(6, 0)
    shared.start("--slots=1")
    taken = shared.await_running(0)
    shared.start("--slots=1")
    shared.await_running(1)
    shared.processes[0].kill()
    Path("gate").touch()
    assert shared.processes[1].wait(60) == 0
    history = shared.history(1)
    once(history, 6)
    as_undisturbed(history, tmp_path)
    assert {history.trials[number].place for number in taken} == {shared.place(1)}
    assert "has given no sign of life" in Path("said-1.txt").read_text()


@pytest.mark.slow
def test_four_coordinators_one_killed_and_each_trial_is_done_once(
    share: Callable[[int, float], Shared], tmp_path: Path
) -> None:
    shared = share(40, 0.25)
    shared.start("--slots=2")
    shared.await_running(0)
    for _ in range(3):
        shared.start("--slots=2")
    running = [shared.await_running(index) for index in range(4)]
    shared.processes[2].kill()
    Path("gate").touch()
    killed = time.monotonic()
    assert [shared.processes[index].wait(200) for index in (0, 1, 3)] == [0, 0, 0]
    histories = [shared.history(index) for index in (0, 1, 3)]
    for history in histories:
        once(history, 40)
    as_undisturbed(histories[0], tmp_path)
    assert len({json.dumps([t.parameters for t in h.trials.values()]) for h in histories}) == 1
    by = Counter(trial.place for trial in histories[0].trials.values())
    names = {shared.place(index): index for index in range(4)}
    again = [t for t in histories[0].trials.values() if t.setbacks]
    assert {trial.number for trial in again} >= set(running[2])
    print("trials by coordinator:", {names[place]: count for place, count in by.items()})  # noqa: T201
    for trial in again:
        print(f"trial {trial.number}: {trial.setbacks[0].reason}")  # noqa: T201
    print(f"all over {time.monotonic() - killed:.1f} s after the kill")  # noqa: T201


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("/postgres", "/nowhere"), 'refuses: database "nowhere" does not exist'),
        (("hpo@", "nobody@"), 'refuses: role "nobody" does not exist'),
        (("127.0.0.1:", "127.0.0.1:1?"), "does not answer|refuses"),
    ],
)
def test_an_address_that_does_not_work_is_one_clear_line(server: Server, change: tuple[str, str], said: str) -> None:
    with pytest.raises(Exception, match=said) as raised:
        Ledger(server.address.replace(*change)).find("x")
    assert "\n" not in str(raised.value)


def test_a_wrong_or_lacking_password_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
    for words in ('FATAL:  password authentication failed for user "me"', "fe_sendauth: no password supplied"):

        def refuse(*_: object, words: str = words, **__: object) -> None:
            raise psycopg.OperationalError(f"{said}{words}\n")

        monkeypatch.setattr("psycopg.connect", refuse)
        with pytest.raises(UserError, match=r"refuses: .*password.*\. Set PGPASSWORD, or use ~/\.pgpass\."):
            Ledger("postgresql://me@10.0.0.1/db").find("x")


def test_a_missing_package_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"pip install \"hpo\[postgres\]\""):
        Ledger(server.address).find("x")


def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--storage requires an address without a password") as refused:
        join("name", "postgresql://me:hidden@there/x", tmp_path)
    assert "hidden" not in str(refused.value)
