"""Join a study that somebody else began: its folder here, from what the ledger keeps of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePath

from hpo.errors import UserError, did_you_mean
from hpo.folder import StudyFolder, StudyRecord, new_study
from hpo.ledger import Entry, Ledger
from hpo.membership import new_place
from hpo.operation import refused_address
from hpo.plan import Plan
from hpo.run import make, reopen, versions
from hpo.study import plan


def join(name: str, address: str, studies: Path, sweep: Path | None = None) -> tuple[Plan, StudyFolder]:
    """Make the folder of a shared study here; where it is here already, go on with it.

    Args:
        name: of the study in the database.
        address: of the database, without a password.
        studies: the folder that studies live in.
        sweep: where its sweep lies here; an objective's file is found relative to it. By default where it lay when
            the study was begun, else its name in the current folder.

    Raises:
        UserError: there is none of this name, or another has it here, or the objective here does not fit it.
        HpoError: the database does not answer.
    """
    if (rule := refused_address(address)) is not None:
        raise UserError(f"--storage {rule}")
    found = _find(name, address)
    here = StudyFolder(studies / name)
    if here.exists and (record := StudyRecord.read(here)).id == found.id:
        shared = {**(record.shared or {"place": new_place()}), "address": address}  # the database may have moved
        dataclasses.replace(record, shared=shared).write(here)
        return reopen(here, None), here
    folder = new_study(studies, name)
    record = _arriving(found, address, sweep)
    planned = plan(found.content["sweep"], Path(record.origin), record.assignments, name=f"{name} in the database")
    make(folder, found.content["sweep"], record)
    if "warm" in found.content:
        folder.warm.write_text(found.content["warm"], encoding="utf-8")
    return planned, folder


def _find(name: str, address: str) -> Entry:
    ledger = Ledger(address)
    try:
        found = ledger.find(name)
        if found is None:
            hint = did_you_mean(name, ledger.entries()) or " It holds none of that name."
            raise UserError(f"no study {name!r} in {address}.{hint}")
    finally:
        ledger.close()
    return found


def _arriving(found: Entry, address: str, sweep: Path | None) -> StudyRecord:
    """The record as this place has it."""
    record = StudyRecord(**found.content["record"])
    origin = sweep or Path(record.origin)
    if not origin.is_file() and sweep is not None:
        raise UserError(f"no sweep file {sweep}. It need not be here: without --sweep, the database's is taken.")
    if not origin.is_file():
        origin = Path.cwd() / PurePath(record.origin).name
    return dataclasses.replace(
        record,
        origin=str(origin.resolve()),
        where=str(Path.cwd()),
        facts={},
        versions=versions(),
        shared={"address": address, "place": new_place()},
    )
