"""What a study folder and the database have to do with each other: enter, compare, catch up, remove.

Knows the journal and the ledger, and nothing of how a search goes on in them (`hpo.sharing`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord, is_locked, locked
from hpo.journal import Journal, lines
from hpo.ledger import Entry, Ledger, Post, Unreachable

_IN_USE_SECONDS = 60.0


def new_place() -> str:
    """The name of a study folder among all that share the study."""
    return uuid.uuid4().hex[:12]


def refuse_taken(name: str, address: str) -> None:
    """Refuse to begin a study that the database has already.

    Raises:
        UserError: it has; the message says how to join it.
        Unreachable: the database does not answer.
    """
    ledger = Ledger(address)
    try:
        if ledger.find(name) is not None:
            raise UserError(
                f"study {name!r} is in {address} already. Join it: hpo join {name} --storage {address}. "
                "Begin another with --name."
            )
    finally:
        ledger.close()


def enter(folder: StudyFolder, settings: Mapping[str, object]) -> list[str]:
    """Enter a study into the ledger, or compare it with what is there; then copy what the ledger has gained.

    Args:
        folder: of the study; the caller holds its lock, and the data is prepared.
        settings: the baseline's, complete with what the sweep does not mention.

    Returns:
        What differs here and may be put up with, in words.

    Raises:
        UserError: another study has its name, or its objective or data is another one here.
        Unreachable: the database does not answer.
    """
    mine = _entry(folder, settings)
    address = (StudyRecord.read(folder).shared or {})["address"]
    ledger = Ledger(address)
    try:
        found = ledger.find(mine.name)
        if found is None and position(folder):
            raise UserError(f"study {mine.name!r} was removed from {address}; what it found is still here.")
        found = found or ledger.add(mine)
    finally:
        ledger.close()
    if found.id != mine.id:
        raise UserError(f"another study of the name {mine.name!r} is in {address} by now. Begin again with --name.")
    notes = _compare(mine.content, json.loads(json.dumps(found.content)))
    catch_up(folder)
    return notes


def _entry(folder: StudyFolder, settings: Mapping[str, object]) -> Entry:
    """What the ledger keeps of a study."""
    record = dataclasses.asdict(StudyRecord.read(folder))
    del record["shared"]  # where we are, and how we reach the database
    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in settings.items()
    }
    content = {"record": record, "sweep": folder.sweep.read_text(encoding="utf-8"), "settings": plain}
    if folder.warm.exists():
        content["warm"] = folder.warm.read_text(encoding="utf-8")
    return Entry(folder.name, record["id"], content)


def _compare(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    here, there = mine["settings"], theirs["settings"]
    differing = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    if differing:
        told = ", ".join(f"{name} is {there.get(name)!r} there, {here.get(name)!r} here" for name in differing)
        raise UserError(
            f"the objective here is not the one that the study was begun with: {told}. Use the same version."
        )
    digests = [content["record"]["facts"].get("digest") for content in (theirs, mine)]
    if digests[0] != digests[1]:
        told = f"digest {digests[0]} there, {digests[1]} here"
        raise UserError(f"the data here is not what the study was begun with ({told}). Trials could not be compared.")
    here, there = mine["record"]["versions"], theirs["record"]["versions"]
    return [
        f"{package} is {there.get(package, 'absent')} where the study was begun, {here.get(package, 'absent')} here"
        for package in sorted({*here, *there})
        if here.get(package) != there.get(package)
    ]


def catch_up(folder: StudyFolder) -> int:
    """Copy what the ledger has gained into the journal here; the caller holds the folder's lock.

    Returns:
        How many lines were new.

    Raises:
        Unreachable: the database does not answer.
    """
    record = StudyRecord.read(folder)
    assert record.shared is not None
    ledger = Ledger(record.shared["address"])
    try:
        with Journal(folder.journal, time.time) as journal:
            posts = ledger.read(record.id, position(folder))
            for post in posts:
                journal.copy(copied(post))
    finally:
        ledger.close()
    return len(posts)


def position(folder: StudyFolder) -> int:
    """The number of the last line of the ledger that is in the journal."""
    return max((line.get("line", 0) for _, line in lines(folder.journal)), default=0)


def copied(post: Post) -> dict[str, Any]:
    """A line of the ledger as it stands in the journal."""
    return {**json.loads(post.line), "place": post.place, "line": post.number}


def refresh(folder: StudyFolder) -> str:
    """Bring the journal here up to the ledger, unless a coordinator does that; why it could not be, or ""."""
    try:
        with locked(folder):
            catch_up(folder)
    except Unreachable as error:
        return f"{error}. This is what is known here."
    except UserError as error:
        return "" if is_locked(folder) else str(error)
    return ""


def remove(folder: StudyFolder) -> None:
    """Remove a study from the database, for everybody.

    Raises:
        UserError: others work on it.
    """
    record = StudyRecord.read(folder)
    assert record.shared is not None
    ledger = Ledger(record.shared["address"])
    try:
        for other in ledger.coordinators(record.id).values():
            if other.place != record.shared["place"] and (other.silent_seconds or math.inf) < _IN_USE_SECONDS:
                raise UserError(f"study {folder.name!r} is being run by {other}. Stop it there first.")
        ledger.remove(record.id)
    finally:
        ledger.close()
