"""The folder of a study: every path in it, what the study is, and who holds it.

studies/<name>/
    sweep.yaml       the sweep as it was written
    study.json       name, origin, overrides, facts of the data, versions
    journal.jsonl    one line an event, appended, never rewritten
    warm.jsonl       what it began with of other studies
    optuna.jsonl     Optuna's own journal
    lock             held by the one coordinator
    trials/0007/     the trial's working folder (checkpoints)
    trials/0007.log  what it printed
    promotions/0001/ a full run
    tracking/        how far each tracker has come
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import UserError, did_you_mean

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("mlflow.db", "mlartifacts")


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Every path of one study."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def sweep(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def record(self) -> Path:
        return self.root / "study.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def warm(self) -> Path:
        return self.root / "warm.jsonl"

    @property
    def optuna(self) -> Path:
        return self.root / "optuna.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def promotions(self) -> Path:
        return self.root / "promotions"

    @property
    def tracking(self) -> Path:
        return self.root / "tracking"

    @property
    def prepare_log(self) -> Path:
        return self.root / "prepare.log"

    @property
    def server_log(self) -> Path:
        return self.root / "launch.log"

    def trial(self, number: int) -> Path:
        return self.root / "trials" / f"{number:04d}"

    def trial_log(self, number: int) -> Path:
        return self.root / "trials" / f"{number:04d}.log"

    def promotion(self, number: int) -> Path:
        return self.promotions / f"{number:04d}"

    @property
    def exists(self) -> bool:
        return self.record.is_file()


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What a study is, kept as study.json: enough to show, track and resume it.

    Attributes:
        id: never reused, unlike the name.
        created: seconds since the epoch.
        sweep_name: the sweep file's name without its suffix; trackers call the experiment so.
        origin: where the sweep lay; an objective's file is found relative to its folder.
        where: the folder the study was begun in; trials run there, so that relative paths of data hold.
        assignments: the `--set` overrides it was run with.
        metric: {"name", "direction", "at"}.
        search: {"sampler", "pruner", "trials", "seed", "rungs"} as text and numbers.
        fixed: settings that do not vary, by dotted name.
        space: searched settings, each in words.
        rates: what an hour of a slot is (`hpo.spending.Rates`).
        facts: what the objective's `prepare` said of its data.
        versions: of the packages that matter.
        mlflow: {"tracking_uri", "experiment"}, or None where the study is not carried to MLflow.
        wandb: {"project", "entity", "mode"}, or None where it is not carried to W&B.
        tradeoff: {"name", "direction"} of each metric that the study's is weighed against.
        shared: {"address", "place"}: the database it is shared through, and this folder's name there; or None.
    """

    name: str
    id: str
    created: float
    sweep_name: str
    origin: str
    assignments: list[str]
    objective: str
    metric: dict[str, str]
    search: dict[str, Any]
    fixed: dict[str, Any]
    space: dict[str, str]
    facts: dict[str, Any]
    versions: dict[str, str]
    mlflow: dict[str, str | None] | None
    rates: dict[str, Any] = dataclasses.field(default_factory=dict)
    where: str = ""
    wandb: dict[str, Any] | None = None
    shared: dict[str, str] | None = None
    tradeoff: list[dict[str, str]] = dataclasses.field(default_factory=list)
    format: int = FORMAT

    @classmethod
    def read(cls, folder: StudyFolder) -> StudyRecord:
        """The record of a study.

        Raises:
            UserError: it cannot be read, or was written by a newer version of this program.
        """
        try:
            fields = json.loads(folder.record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder.record} cannot be read: {error}.") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            fields = fields if isinstance(fields, dict) else {}
            raise UserError(
                f"{folder.record}: written in format {fields.get('format')!r}, this version reads {FORMAT}."
            )
        return cls(**fields)

    def write(self, folder: StudyFolder) -> None:
        write_atomically(folder.record, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def study_names(studies: Path) -> list[str]:
    """Names of the studies in a folder, sorted."""
    if studies.exists() and not studies.is_dir():
        raise UserError(f"{studies} is no folder; --studies names the folder that studies live in.")
    return sorted(path.parent.name for path in studies.glob("*/study.json"))


def find_study(studies: Path, name: str) -> StudyFolder:
    """The folder of an existing study.

    Raises:
        UserError: there is none of this name.
    """
    folder = StudyFolder(studies / name)
    if not folder.exists:
        names = study_names(studies)
        hint = did_you_mean(name, names) or " `hpo list` shows what is there."
        raise UserError(f"no study {name!r} in {studies}.{hint}")
    return folder


def new_study(studies: Path, name: str) -> StudyFolder:
    """The folder of a study that is to be made; it is not there yet.

    Raises:
        UserError: the name is not allowed, or a study has it already; the message suggests a free one.
    """
    if name in _RESERVED:
        raise UserError(f"{name!r} is where MLflow keeps its things, beside the studies. Use --name.")
    if not _NAME.fullmatch(name):
        raise UserError(f"a study's name is letters, digits, '.', '_' and '-', up to 100; got {name!r}. Use --name.")
    folder = StudyFolder(studies / name)
    if folder.exists:
        free = next(candidate for n in range(2, 10_000) if not (studies / (candidate := f"{name}-{n}")).exists())
        raise UserError(
            f"study {name!r} exists already in {studies}. Go on with it: hpo resume {name}. "
            f"Begin another: --name {free}. Remove it: hpo delete {name}."
        )
    return folder


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary name, fsync, rename.

    Raises:
        OSError: the disk does not take it; the error names the file, and nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        error.filename = error.filename or str(path)  # a write does not know what it writes to
        raise


@contextlib.contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Hold a study: one coordinator at a time. The kernel releases the lock with the process, however it dies.

    Raises:
        UserError: another process holds it; the message names it.
    """
    with folder.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(f"study {folder.name!r} is being run by {holder}. Wait for it, or stop it first.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def is_locked(folder: StudyFolder) -> bool:
    """Whether a living coordinator holds the study."""
    if not folder.lock.exists():
        return False
    with folder.lock.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def holder(folder: StudyFolder) -> int | None:
    """The process that holds the study, or None where no living one does."""
    if not is_locked(folder):
        return None
    found = re.match(r"process (\d+) on ", folder.lock.read_text(encoding="utf-8"))
    return int(found[1]) if found else 0


def size(folder: Path) -> int:
    """Bytes of all files in a folder; 0 where it is not there."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def delete_study(folder: StudyFolder) -> None:
    """Remove a study's folder. The caller holds its lock."""
    # The record goes first: a half-deleted folder is then no study, rather than a broken one.
    folder.record.unlink(missing_ok=True)
    shutil.rmtree(folder.root)
