"""A study as runs at W&B: one for the study, one for each trial, one for each promotion.

Online, a trial's run is open while it trains and gains its rows as the journal does. Offline nobody is looking: a run
is written in one go when its trial has ended or is set aside, and replaced when it goes on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence

from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History
from hpo.track import Line
from hpo.track.wandb import destination, promotions
from hpo.track.wandb.client import Client, Gone, Live
from hpo.track.wandb.contents import Content, study_run, trial_run
from hpo.track.wandb.ledger import Ledger

_log = logging.getLogger("hpo.track.wandb")


class WandbTracker:
    """One study at W&B (see `hpo.track.Tracker`)."""

    name = "wandb"

    def __init__(self, folder: StudyFolder, record: StudyRecord) -> None:
        self._folder = folder
        self._record = record
        self._destination = destination.of_study(record)
        self._client = Client(destination.runs_folder(folder).absolute(), self._destination)
        self._live: dict[str, Live] = {}
        self._ledger: Ledger | None = None

    @property
    def address(self) -> str:
        return self._destination.shown

    def memory(self) -> dict[str, str]:
        """What it says is for `hpo ui` and for `open`: whether anything was finished here."""
        return {"server": self._destination.server or "", "runs": str(len(self._ledger or ()))}

    def open(self, memory: Mapping[str, str]) -> bool:
        # The library's process may hold runs of an earlier try, which it would not begin again.
        self.close()
        place = destination.runs_folder(self._folder).absolute()
        self._ledger = Ledger(place, self.address, self._record.id)
        self._ledger.tidy()
        return memory.get("runs", "0") == "0" or len(self._ledger) > 0

    def write(self, lines: Sequence[Line], history: History) -> None:
        states = [line for line in lines if line["event"] == "study"]
        if states and states[-1]["state"] != "running" and history.state != "running":
            self._everything(history)
            return
        for number in dict.fromkeys(line["trial"] for line in lines if "trial" in line):
            self._bring(trial_run(self._record, history.trials[number], left=False))
        if self._destination.online:
            self._bring(study_run(self._record, history, left=False))

    def settle(self, history: History) -> None:
        if history.trials:
            self._everything(history)

    def _everything(self, history: History) -> None:
        for number in sorted(history.trials):
            self._bring(trial_run(self._record, history.trials[number], left=True))
        self._bring(study_run(self._record, history, left=True))
        for content in promotions.kept(self._folder):
            self._bring(content)

    def _bring(self, content: Content) -> None:
        """Have W&B's run be this."""
        assert self._ledger is not None
        over = content.exit_code is not None
        if not over and not self._destination.online:
            return
        digest = content.digest()
        if self._ledger.has(content.id, digest):
            return
        try:
            run = self._live.get(content.id)
            if run is None:
                run = self._live[content.id] = self._client.start(content)
            if not over:
                run.advance(content)
                return
            run.finish(content)
        except Gone:
            _log.warning("%s was deleted at W&B: nothing more is written to it", content.name)
            self._ledger.enter(content.id, digest, None)
            return
        del self._live[content.id]
        # What was uploaded need not lie here too: the journal has it.
        self._ledger.enter(content.id, digest, None if self._destination.online else run.folder)

    def close(self) -> None:
        for run in self._live.values():
            with contextlib.suppress(Exception):
                run.drop()
        self._live = {}
        self._client.close()
