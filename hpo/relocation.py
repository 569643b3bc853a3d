"""Carry a study from one place to another: out into an archive, and in from one.

What belongs to a place stays there: its paths, how far its trackers have come, Optuna's store (made again from
the journal), the lock. An imported study has an id of its own, so that it never writes into another's runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hpo import account, warming
from hpo.archive import SUFFIX, Archive, Chunks, file_chunks, opened, pack, read_history, read_record
from hpo.document import load_yaml
from hpo.errors import HpoError, UserError
from hpo.folder import StudyFolder, StudyRecord, new_study
from hpo.journal import History
from hpo.promote import Promotion, model_folder, promotions
from hpo.report import study_json
from hpo.summary import Summary
from hpo.wording import number

_FOR_PEOPLE = ("trials.csv", "curves.csv", "report.md")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An imported study, and what to know of it before it goes on: sentences."""

    folder: StudyFolder
    notes: tuple[str, ...]


# -- out ------------------------------------------------------------------------------------------------


def export_study(folder: StudyFolder, output: Path | None, *, checkpoints: bool = False, force: bool = False) -> Path:
    """Pack a study. One that is running is packed as it is now.

    Args:
        folder: of the study.
        output: the archive; `NAME.hpo.zip` in the current folder if None.
        checkpoints: whether to pack the best trial's folder and the models of promotions too.
        force: whether to replace an archive that is there.

    Raises:
        UserError: there is something at `output`, or it cannot be written there.
        HpoError: a file changed while it was packed.
    """
    path = output or Path(f"{folder.name}{SUFFIX}")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the archive a name: --output {path / (folder.name + SUFFIX)}.")
    if path.exists() and not force:
        raise UserError(f"{path} exists already. Replace it with --force, or use --output.")
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent} to write {path.name} to.")
    summary = Summary.read(folder)
    head = {"study": folder.name, "id": summary.record.id, "made": round(time.time(), 3)}
    head["program"] = f"hpo {summary.record.versions.get('hpo', '')}".strip()
    try:
        pack(path, head, _members(folder, summary, checkpoints))
    except FileNotFoundError as error:
        raise HpoError(
            f"{error.filename} went away while it was packed; a running study does that. Try again."
        ) from None
    return path


def _members(folder: StudyFolder, summary: Summary, checkpoints: bool) -> Iterator[tuple[str, Chunks]]:
    yield "study.json", [_text(_departing(summary.record))]
    yield "sweep.yaml", file_chunks(folder.sweep)
    # Up to the last whole line that the summary has read: a coordinator may be appending meanwhile.
    offset = summary.history.offset
    yield "journal.jsonl", file_chunks(folder.journal, offset) if offset else []
    if folder.warm.exists():
        yield "warm.jsonl", file_chunks(folder.warm)
    promoted = promotions(folder)
    yield "trials.csv", account.trials_csv(summary)
    yield "curves.csv", account.curves_csv(summary)
    yield "report.md", [account.report(summary, promoted).encode()]
    for promotion in promoted:
        place = folder.promotion(promotion.number)
        yield f"promotions/{place.name}/promotion.json", file_chunks(place / "promotion.json")
        if checkpoints:
            yield from _tree(model_folder(StudyFolder(place)), f"promotions/{place.name}/model")
    if checkpoints and summary.best is not None:
        kept = folder.trial(summary.best.number)
        yield from _tree(kept, f"trials/{kept.name}")


def _tree(root: Path, name: str) -> Iterator[tuple[str, Chunks]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield f"{name}/{path.relative_to(root).as_posix()}", file_chunks(path)


def _text(record: StudyRecord) -> bytes:
    return (json.dumps(dataclasses.asdict(record), indent=2) + "\n").encode()


def _departing(record: StudyRecord) -> StudyRecord:
    """The record without this machine's paths and addresses; `origin` becomes relative to where it was begun."""
    origin = PurePath(record.origin)
    inside = bool(record.where) and origin.is_relative_to(record.where)
    relative = origin.relative_to(record.where) if inside else PurePath(origin.name)
    return _placed(record, origin=relative.as_posix(), where="", tracking_uri=None)


def _placed(record: StudyRecord, *, origin: str, where: str, tracking_uri: str | None) -> StudyRecord:
    mlflow = None if record.mlflow is None else {**record.mlflow, "tracking_uri": tracking_uri}
    return dataclasses.replace(record, origin=origin, where=where, mlflow=mlflow, shared=None)


# -- in -------------------------------------------------------------------------------------------------


def import_study(path: Path, studies: Path, name: str | None = None) -> Arrival:
    """Make a study from an archive. It is there whole or not at all.

    Args:
        path: the archive.
        studies: the folder that studies live in.
        name: of the study here; the archive's own if None.

    Raises:
        UserError: the archive cannot be trusted or read, the name is taken, or `studies` cannot be written to.
    """
    with opened(path) as archive:
        folder = new_study(studies, name or str(archive.head.get("study", "")))
        needed = sum(archive.sizes.values())
        waiting = studies / f".import-{uuid.uuid4().hex}"  # one level too deep to be taken for a study
        try:
            waiting.mkdir(parents=True)
            if needed > (free := shutil.disk_usage(studies).free):
                raise UserError(f"{path} needs {number(needed)} bytes, {studies} has {number(free)} left. Make room.")
            arrived = StudyFolder(waiting / folder.name)
            notes = _unpack(archive, arrived)
            _settle_in(arrived.root, folder.root, studies)
        except OSError as error:
            raise UserError(f"cannot write to {studies}: {error.strerror}. Use --studies.") from None
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"{path}: its files do not hold together ({what}). Get the archive again.") from None
        finally:
            shutil.rmtree(waiting, ignore_errors=True)
    return Arrival(folder, notes)


def _settle_in(source: Path, target: Path, studies: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
        raise UserError(f"{target} is there already and is no study. Use --name or --studies.") from None
    descriptor = os.open(studies, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unpack(archive: Archive, folder: StudyFolder) -> tuple[str, ...]:
    archive.extract(folder.root, lambda name: name not in _FOR_PEOPLE)
    record = _arriving(folder, archive.path)
    try:
        tree, _ = load_yaml(folder.sweep.read_text(encoding="utf-8"), f"{archive.path}: sweep.yaml")
    except UnicodeDecodeError as error:
        raise UserError(f"{archive.path}: sweep.yaml cannot be read: {error}.") from None
    if tree.get("storage") is not None:
        # The study that is shared stays where it is; this is a copy, which goes on alone.
        record = dataclasses.replace(record, assignments=[*record.assignments, "storage=null"])
    history = read_history(folder, archive.path)
    _adopt_promotions(folder, record, archive.path)
    # Whatever can be shown of it is tried now: a value of a wrong kind must not wait for the first `hpo list`.
    summary = Summary(record, history, live=False)
    study_json(summary)
    warming.read(folder.warm)
    account.report(summary, promotions(folder))
    record.write(folder)
    return tuple(_notes(folder, record, history))


def _arriving(folder: StudyFolder, path: Path) -> StudyRecord:
    """The record as this place has it: a new id, the current folder as where it goes on, its own tracker."""
    record = read_record(folder, path)
    origin = PurePath(record.origin)
    if origin.is_absolute() or ".." in origin.parts or not origin.name:
        origin = PurePath(origin.name or "sweep.yaml")
    here = Path.cwd()
    record = dataclasses.replace(record, name=folder.name, id=uuid.uuid4().hex, shared=None)
    return _placed(record, origin=str(here / origin), where=str(here), tracking_uri=None)


def _adopt_promotions(folder: StudyFolder, record: StudyRecord, path: Path) -> None:
    try:
        arrived: list[Promotion] = promotions(folder)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a promotion.json cannot be read: {error}. Get the archive again.") from None
    for promotion in arrived:
        own: dict[str, Any] = {"study": folder.name, "study_id": record.id}
        dataclasses.replace(promotion, **own).write(StudyFolder(folder.promotion(promotion.number)))


def _notes(folder: StudyFolder, record: StudyRecord, history: History) -> Iterator[str]:
    yield f"{len(history.trials)} trials, {len(history.ended)} ended"
    if lost := [t.number for t in history.unfinished if not folder.trial(t.number).exists()]:
        yield f"unfinished trials begin again, their checkpoints stayed behind: {', '.join(map(str, lost))}"
    file, _, _ = record.objective.rpartition(":")
    if file.endswith(".py") and not (objective := Path(record.origin).parent / file).exists():
        yield f"to resume or promote it, its objective must be at {objective}"
