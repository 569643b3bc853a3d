"""Optuna's own journal in a file with one writer: what its storage is made of.

Knows how Optuna writes a journal and nothing of what it says of trials.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from hpo.journal import JournalError, lines, mend

_CREATE_TRIAL = 4  # of Optuna's JournalOperation: what its files say


class Store(BaseJournalBackend):
    """Optuna's journal in a file with one writer: no lock, no fsync.

    Both would be paid several times on every free slot. The study's own lock keeps other writers out, and
    what a power cut takes from this file is brought back from our record, which is synced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = [0]  # of each line read so far, so that none is read twice
        mend(path)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number = min(log_number_from, len(self._offsets) - 1)
        for end, line in lines(self._path, self._offsets[number]):
            number += 1
            if number == len(self._offsets):
                self._offsets.append(end)
            if number > log_number_from:
                yield line

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        except OSError as error:
            raise JournalError.of(self._path, error) from error

    def keep(self, trials: int) -> None:
        """Keep the first so many trials, and cut away everything from where the next was begun.

        Of a trial that was begun as the coordinator died only a part may be here, and a sampler that is asked for
        the rest alone gives other values than it gave before. What else stood behind it is in the record, and is
        told again. Whoever has read the file must open it anew.
        """
        created = start = 0
        for end, line in lines(self._path):
            created += line["op_code"] == _CREATE_TRIAL
            if created > trials:
                os.truncate(self._path, start)
                return
            start = end
