"""Which of a study's W&B runs were written whole, kept on disk beside them. Knows nothing of the library.

A run's folder that the ledger does not name is one that was left half written, or was replaced: it is removed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from hpo.folder import write_atomically


class Ledger:
    """What is finished at one destination."""

    def __init__(self, folder: Path, destination: str, study_id: str) -> None:
        """Read it.

        Args:
            folder: of the study's runs; made if need be.
            destination: what was written to another is not here.
            study_id: every run's id begins with it.
        """
        self._folder = folder
        self._destination = destination
        self._study_id = study_id
        folder.mkdir(parents=True, exist_ok=True)
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            known = saved["runs"] if saved["destination"] == destination else {}
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        self._runs: dict[str, dict[str, Any]] = known

    @property
    def _path(self) -> Path:
        return self._folder / "ledger.json"

    def __len__(self) -> int:
        return len(self._runs)

    def has(self, run_id: str, digest: str) -> bool:
        """Whether this very content was written."""
        return self._runs.get(run_id, {}).get("digest") == digest

    def enter(self, run_id: str, digest: str, written: Path | None) -> None:
        """A run is finished; `written` is its folder where it is kept. What it replaces goes."""
        if written is not None:
            for path in written.glob("*.wandb"):
                _to_disk(path)
        self._runs[run_id] = {"digest": digest, "folder": None if written is None else written.name}
        text = json.dumps({"destination": self._destination, "runs": self._runs}, indent=1)
        write_atomically(self._path, text + "\n")
        self.tidy(run_id)

    def tidy(self, run_id: str = "") -> None:
        """Remove folders, of one run or of all, that are not in the ledger. Call for all where nothing is open."""
        named = {run["folder"] for run in self._runs.values()}
        for path in self._folder.glob(f"*run-*-{run_id or self._study_id}*"):
            if path.is_dir() and not path.is_symlink() and path.name not in named and self._is_of(path, run_id):
                shutil.rmtree(path, ignore_errors=True)

    def _is_of(self, path: Path, run_id: str) -> bool:
        kind, _, own = path.name.partition("run-")
        # run-20261122_224801-ID, and -1 behind it where two began in one second
        own = own.partition("-")[2]
        return kind in ("", "offline-") and (not run_id or own == run_id or own.startswith(f"{run_id}-"))


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
