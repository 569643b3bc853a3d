"""Whose turn it is to carry a shared study to a tracker that several of its coordinators reach.

Each coordinator's journal has the whole study, so one pump carries for all: the one that holds a lock in the database
the study is shared through. Where it ends, the next begins from its own journal; trackers take the same lines again
without a trace. A store on one's own machine is carried to by nobody else.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from hpo.folder import StudyFolder, StudyRecord
from hpo.ledger import Ledger


@contextlib.contextmanager
def turn(folder: StudyFolder, address: str) -> Iterator[Callable[[], bool]]:
    """A question, to be asked again until it says yes: whether it is this folder's turn. It stays so in the block.

    The question raises HpoError where the database does not answer. Of a study that is not shared it is always yes.
    """
    record = StudyRecord.read(folder)
    if record.shared is None:
        yield lambda: True
        return
    where = address if address.startswith("http") else f"{socket.gethostname()} {address}"
    ledger = Ledger(record.shared["address"])
    try:
        yield lambda: ledger.lock(f"{record.id} {where}")
    finally:
        ledger.close()
