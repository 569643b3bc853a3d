"""The pump: carries a study's journal to a tracker, in batches, from a process of its own.

`python -m hpo.track.pump studies/NAME mlflow` belongs to one coordinator, which holds the other end of its stdin.
Each tracker has a pump of its own, so that one which is down does not hold up the other.
It follows the journal from a cursor on disk, waits out a tracker that is down, and when the coordinator is
done, or dead, carries what is left and ends. The cursor moves after a batch is written, so a batch may be
written twice, never not at all; trackers take that without a trace. Knows no tracker's client.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from hpo.errors import HpoError, UserError
from hpo.folder import StudyFolder, StudyRecord, holder, is_locked, write_atomically
from hpo.journal import History, lines
from hpo.operation import MlflowSettings
from hpo.track import TITLES, Line, Refusal, Tracker, children, tracked
from hpo.track.trouble import Discreet, one_line, unforeseen
from hpo.track.turns import turn

_log = logging.getLogger("hpo.track.pump")

BATCH_LINES = 2000
_BATCH_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0
_LAST_TRIES = 4
_SYNC_TRIES = 2
_NICENESS, _GIVEN_UP = 10, 3


def tracker_of(folder: StudyFolder, name: str = "mlflow") -> Tracker | None:
    """A tracker that a study is carried to, or None where it is not carried to this one."""
    record = StudyRecord.read(folder)
    if name == "mlflow" and record.mlflow is not None:
        from hpo.track.mlflow.runs import MlflowTracker
        from hpo.track.mlflow.store import tracking_uri

        return MlflowTracker(folder, record, tracking_uri(MlflowSettings(**record.mlflow), folder.root.parent))
    if name == "wandb" and record.wandb is not None:
        from hpo.track.wandb.runs import WandbTracker

        return WandbTracker(folder, record)
    return None


class Courier:
    """Carries batches from a journal to a tracker, and remembers on disk how far it came."""

    def __init__(self, folder: StudyFolder, tracker: Tracker, *, from_start: bool = False) -> None:
        self._folder = folder
        self._tracker = tracker
        self._history = History()
        self._pending: list[Line] = []
        self._end = self._offset = 0
        self._memory: dict[str, str] = {}
        self._opened = False
        self._trouble: str | None = None
        folder.tracking.mkdir(exist_ok=True)
        saved = {} if from_start else read_cursor(folder, tracker.name)
        if saved.get("address") == tracker.address and saved.get("offset", 0) <= _size(folder.journal):
            self._memory, self._offset = saved.get("memory", {}), saved.get("offset", 0)
            self._recall()

    def _recall(self) -> None:
        """Fold what was carried before: the next batch is read against it."""
        for end, line in lines(self._folder.journal):
            if end > self._offset:
                break
            self._history.add(line)
        self._end = self._offset

    def carry(self) -> int:
        """Carry the next batch; how many lines it had. Below `BATCH_LINES`, that was all there is.

        Raises:
            Exception: whatever the tracker raised. Nothing is lost: call again.
        """
        try:
            if not self._opened:
                self._open()
            if not self._pending:
                self._read()
            if self._pending:
                self._tracker.write(self._pending, self._history)
        except Exception as error:
            self._failed(error)
            raise
        count = len(self._pending)
        self._pending, self._offset = [], self._end
        if count or self._trouble:
            self._trouble = None
            self._save()
        return count

    def settle(self) -> None:
        """If no coordinator is left that could say how the study goes on, have the tracker show it as set aside."""
        if is_locked(self._folder):
            return
        try:
            self._tracker.settle(self._history)
        except Exception as error:
            self._failed(error)
            raise

    def _failed(self, error: Exception) -> None:
        # What of it came through is not known; opening again finds out.
        self._opened = False
        self._note(f"{self._tracker.address}: {one_line(error)}")

    def _open(self) -> None:
        if not self._tracker.open(self._memory):
            _log.warning("%s no longer has what was written to it: writing all of it again", self._tracker.address)
            self._history, self._pending = History(), []
            self._offset = self._end = 0
        self._memory, self._opened = self._tracker.memory(), True
        self._save()

    def _read(self) -> None:
        for end, line in lines(self._folder.journal, self._offset):
            self._history.add(line)
            self._pending.append(line)
            self._end = end
            if len(self._pending) >= BATCH_LINES:
                return

    def _note(self, trouble: str) -> None:
        if self._trouble is None:
            self._trouble = trouble
            self._save()

    def _save(self) -> None:
        cursor: dict[str, Any] = {"address": self._tracker.address, "offset": self._offset, "memory": self._memory}
        if self._trouble:
            cursor["trouble"] = self._trouble
        write_atomically(_cursor(self._folder, self._tracker.name), json.dumps(cursor, indent=1) + "\n")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cursor(folder: StudyFolder, tracker: str) -> Path:
    return folder.tracking / f"{tracker}.json"


def read_cursor(folder: StudyFolder, tracker: str = "mlflow") -> dict[str, Any]:
    """How far a tracker has come: address, offset (bytes), memory (its ids), trouble. Empty if it never began."""
    try:
        cursor: dict[str, Any] = json.loads(_cursor(folder, tracker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cursor


def behind(folder: StudyFolder, tracker: str = "mlflow") -> int:
    """Bytes of the journal that the tracker has not been given yet."""
    return _size(folder.journal) - int(read_cursor(folder, tracker).get("offset", 0))


# -- in the pump's process ------------------------------------------------------------------------------


class Coordinator(Protocol):
    """The pump's view of whoever started it."""

    @property
    def present(self) -> bool: ...

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until it leaves."""
        ...


class _Stdin:
    """The coordinator holds the other end of our stdin: when it closes it, or dies, we read its end."""

    present = True

    def wait(self, seconds: float) -> None:
        if not self.present:
            time.sleep(seconds)
        elif select.select([0], [], [], seconds)[0] and not os.read(0, 4096):
            self.present = False


def follow(courier: Courier, coordinator: Coordinator) -> bool:
    """Carry what the journal gains until the coordinator has left and nothing remains.

    Returns:
        Whether everything was carried; False once the coordinator has left and the tracker refuses repeatedly.
    """
    failures = 0
    last_tries = False
    while True:
        # Asked before reading: what was written until the coordinator left is then read below.
        present = coordinator.present
        if not present and not last_tries:
            last_tries, failures = True, 0
        try:
            count = courier.carry()
            if count < BATCH_LINES and not present:
                courier.settle()
                return True
        except Exception as error:
            failures += 1
            if failures == 1:
                _log.warning("%s. Trying again; nothing is lost", one_line(error), exc_info=unforeseen(error))
            if not present and (failures >= _LAST_TRIES or isinstance(error, Refusal)):
                _log.warning("given up for now: hpo sync carries the rest")
                return False
            coordinator.wait(min(2.0 ** (failures - 1), _LONGEST_WAIT_SECONDS))
            continue
        if failures:
            _log.warning("reached again after %d failed tries", failures)
            failures = 0
        if count < BATCH_LINES:
            coordinator.wait(_BATCH_SECONDS)


@contextlib.contextmanager
def _alone(folder: StudyFolder, tracker: str = "mlflow", *, wait: bool) -> Iterator[None]:
    """One writer to a tracker at a time: runs are looked for before they are made.

    Raises:
        UserError: another is at it, and `wait` is False.
    """
    folder.tracking.mkdir(exist_ok=True)
    with (folder.tracking / f"{tracker}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            title = TITLES.get(tracker, tracker)
            raise UserError(f"study {folder.name!r} is being carried to {title} already, by its own run.") from None
        yield


def main(argv: list[str]) -> int:
    """The pump's process. Exit code 0: everything was carried."""
    os.nice(_NICENESS)
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    folder, name = StudyFolder(Path(argv[0])), argv[1]
    tracker = tracker_of(folder, name)
    if tracker is None:
        return 0
    coordinator = _Stdin()
    with _alone(folder, name, wait=True), contextlib.closing(tracker), turn(folder, tracker.address) as mine:
        coordinator.wait(0)
        # After a short study its own coordinator, our parent, still holds it and waits for us.
        left_to_another = not coordinator.present and holder(folder) not in (None, os.getppid())
        if left_to_another or not _await(mine, coordinator):
            return 0  # another coordinator's pump has the same lines and carries them
        return 0 if follow(Courier(folder, tracker), coordinator) else _GIVEN_UP


def _await(mine: Callable[[], bool], coordinator: Coordinator) -> bool:
    """Wait until this pump is to carry; False where another does and the coordinator has left."""
    while True:
        with contextlib.suppress(HpoError):  # the database is down: the coordinator says so
            if mine():
                return True
        if not coordinator.present:
            return False
        coordinator.wait(_BATCH_SECONDS)


# -- in the coordinator's process -----------------------------------------------------------------------


class Pump:
    """The coordinator's hold on a pump. Nothing here raises: a search does not depend on its copies."""

    def __init__(self, folder: StudyFolder, process: subprocess.Popen[bytes] | None, tracker: str = "mlflow") -> None:
        self._folder = folder
        self._process = process
        self.tracker = tracker

    @classmethod
    def start(cls, folder: StudyFolder, tracker: str = "mlflow") -> Self:
        """Begin to carry a study to a tracker."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = children.environment(**threads, CUDA_VISIBLE_DEVICES="")
        command = children.command("hpo.track.pump", str(folder.root.resolve()), tracker)
        try:
            folder.tracking.mkdir(exist_ok=True)
            with (folder.tracking / f"{tracker}.log").open("ab") as log:
                # A session of its own: Ctrl-C in the terminal is for the coordinator.
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
                )
        except OSError as error:
            _log.warning("the pump could not be started: %s", error)
            return cls(folder, None, tracker)
        return cls(folder, process, tracker)

    @property
    def title(self) -> str:
        """The tracker as people write it."""
        return TITLES.get(self.tracker, self.tracker)

    def trouble(self) -> str | None:
        """Why the tracker does not take anything at the moment; None if it does."""
        trouble = read_cursor(self._folder, self.tracker).get("trouble")
        return None if trouble is None else str(trouble)

    def dismiss(self) -> None:
        """Tell the pump that nothing more will come; it carries what is left and ends."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def finish(self, timeout_seconds: float) -> bool:
        """Let the pump carry what is left and end.

        Returns:
            Whether everything in the journal has reached the tracker. If not, `sync` carries the rest later.
        """
        if self._process is None:
            return False
        self.dismiss()
        try:
            return self._process.wait(timeout_seconds) == 0
        except subprocess.TimeoutExpired:
            _end(self._process)
            return False


def start_all(folder: StudyFolder) -> list[Pump]:
    """A pump for each tracker of a study."""
    return [Pump.start(folder, name) for name in tracked(StudyRecord.read(folder))]


def finish_all(pumps: Sequence[Pump], timeout_seconds: float) -> list[Pump]:
    """Let all carry what is left, side by side, and end.

    Returns:
        Those that could not carry everything.
    """
    deadline = time.monotonic() + timeout_seconds
    for pump in pumps:
        pump.dismiss()
    return [pump for pump in pumps if not pump.finish(max(0.0, deadline - time.monotonic()))]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def sync(
    folder: StudyFolder,
    name: str | None = None,
    *,
    from_start: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Bring a study's trackers up to its journal, now, in this process.

    Args:
        folder: of the study.
        name: of one tracker; all of the study's, one after another, by default.
        from_start: go through the whole journal again, for a tracker that lost something.
        sleep: how to wait between tries.

    Returns:
        How many lines of the journal were carried.

    Raises:
        UserError: the study is not tracked, or its own pump is at work.
        HpoError: a tracker cannot be reached.
    """
    names = _tracked(folder) if name is None else [name]
    return sum(_sync(folder, each, from_start, sleep) for each in names)


def sync_all(folder: StudyFolder) -> Iterator[str]:
    """Bring each of a study's trackers up to its journal, and say of each how it went.

    Raises:
        UserError: the study is not tracked.
        HpoError: the first of what the trackers raised, once all were tried.
    """
    raised: list[HpoError] = []
    for name in _tracked(folder):
        try:
            yield f"{sync(folder, name)} lines of the journal carried; {TITLES[name]} has everything."
        except HpoError as error:
            raised.append(error)
    yield from map(str, raised[1:])
    if raised:
        raise raised[0]


def _tracked(folder: StudyFolder) -> list[str]:
    names = tracked(StudyRecord.read(folder))
    if not names:
        raise UserError(f"study {folder.name!r} is not tracked: its sweep says `track: {{}}`.")
    return names


def _sync(folder: StudyFolder, name: str, from_start: bool, sleep: Callable[[float], None]) -> int:
    tracker = tracker_of(folder, name)
    if tracker is None:
        raise UserError(f"study {folder.name!r} is not tracked by {TITLES.get(name, name)}.")
    with (
        _alone(folder, name, wait=False),
        contextlib.closing(tracker),
        turn(folder, tracker.address) as mine,
    ):
        if not mine():
            raise UserError(f"study {folder.name!r} is being carried there already, by another of its coordinators.")
        courier = Courier(folder, tracker, from_start=from_start)
        carried = failures = 0
        while True:
            try:
                count = courier.carry()
                carried += count
                if count < BATCH_LINES:
                    courier.settle()
                    return carried
            except Exception as error:
                failures += 1
                if failures >= _SYNC_TRIES or isinstance(error, Refusal):
                    where = f"{TITLES.get(name, name)} at {tracker.address}"
                    rule = f"{where} cannot be written to: {one_line(error)}."
                    raise HpoError(
                        f"{rule} Nothing is lost; try again when it is back: hpo sync {folder.name}"
                    ) from error
                sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
