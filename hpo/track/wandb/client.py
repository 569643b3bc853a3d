"""The calls to the W&B library: quiet, in the study's own folder, deaf to settings meant for other runs, impatient.

What of wandb 0.31 is relied on: `init` raises where the server refuses or cannot be reached; `finish` waits for the
upload no longer than `finish_timeout`; an upload that was given up is told in the run's own log alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.track import Refusal, spelling
from hpo.track.wandb.contents import TABLE, Content
from hpo.track.wandb.destination import Destination, has_key

_log = logging.getLogger("hpo.track.wandb")

# What the environment may say of a connection. The rest (WANDB_RUN_ID, WANDB_RESUME, ...) is of other runs.
_HEEDED: tuple[str, ...] = ("API_KEY", "BASE_URL", "ENTITY", "CONFIG_DIR", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE")
_HEEDED += ("INSECURE_DISABLE_SSL", "HTTP_PROXY", "HTTPS_PROXY", "APP_URL", "X_EXTRA_HTTP_HEADERS")

_QUIET: dict[str, Any] = {
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "silent": True,
    "use_dot_wandb": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_disable_viewer": True,
    "x_save_requirements": False,
}
# The library's own would hold a call for minutes; the pump decides when to try again.
_SHORT: dict[str, Any] = {
    "init_timeout": 20.0,
    "login_timeout": 10.0,
    "finish_timeout": 10.0,
    "finish_timeout_raises": True,
    "x_graphql_retry_max": 1,
    "x_graphql_retry_wait_min_seconds": 0.5,
    "x_graphql_retry_wait_max_seconds": 1.0,
    "x_graphql_timeout_seconds": 10.0,
    "x_file_stream_retry_max": 2,
    "x_file_stream_retry_wait_min_seconds": 0.5,
    "x_file_stream_retry_wait_max_seconds": 1.0,
    "x_file_stream_timeout_seconds": 10.0,
    "x_file_stream_transmit_interval": 2.0,
    "x_file_transfer_retry_max": 1,
    "x_file_transfer_retry_wait_max_seconds": 1.0,
}
_LOST = ("filestream: fatal error", "runupserter: failed to upload changes")


class Gone(HpoError):
    """Somebody deleted the run at W&B, where its id cannot be used again."""


class Client:
    """The library, for one study."""

    def __init__(self, folder: Path, destination: Destination) -> None:
        self._destination = destination
        self._folder = folder
        self._module: Any = None

    def start(self, content: Content) -> Live:
        """Begin a run, in place of the one of the same id.

        Raises:
            Refusal: there is no key, or W&B does not take it.
            Gone: the run was deleted there.
            HpoError: W&B cannot be reached.
        """
        if self._destination.online and not has_key():
            # The library would ask for one at the terminal, and wait.
            raise Refusal("W&B needs a key: set WANDB_API_KEY, or `wandb login`")
        options: dict[str, Any] = dict(_QUIET, root_dir=str(self._folder.parent))
        options |= {"mode": "online", **_SHORT} if self._destination.online else {"mode": "offline"}
        with self.fenced() as wandb:
            try:
                run = wandb.init(
                    project=self._destination.project,
                    entity=self._destination.entity,
                    id=content.id,
                    name=content.name,
                    group=content.group,
                    job_type=content.job_type,
                    config=dict(content.config),
                    notes=content.notes or None,
                    tags=list(content.tags) or None,
                    # Several runs are open at once; none of them is the module's own.
                    reinit="create_new",
                    settings=wandb.Settings(**options),
                )
            except (wandb.Error, TimeoutError) as error:
                raise _told(error) from error
            run.define_metric(content.axis)
            run.define_metric("*", step_metric=content.axis)
        return Live(self, run, content.notes)

    def table(self, columns: list[str], rows: list[list[Any]]) -> Any:
        return self._module.Table(columns=columns, data=rows, allow_mixed_types=True)

    def close(self) -> None:
        """End the library's own process."""
        if self._module is not None:
            with self.fenced() as wandb, contextlib.suppress(Exception):
                wandb.teardown()
            self._module = None
        if self._destination.online:
            # Offline, the table of a study lies there until it is uploaded.
            shutil.rmtree(self._folder / "data", ignore_errors=True)

    @contextlib.contextmanager
    def fenced(self) -> Iterator[Any]:
        """The library, while the environment says nothing of other runs and its words do not reach the terminal."""
        kept = {f"WANDB_{name}" for name in _HEEDED}
        before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("WANDB_")}
        os.environ.update({name: text for name, text in before.items() if name in kept})
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ["WANDB_SILENT"] = "true"
        # What it would keep in the home folder.
        os.environ |= {"WANDB_DATA_DIR": str(self._folder / "data"), "WANDB_CACHE_DIR": str(self._folder / "data")}
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                if self._module is None:
                    self._module = library()
                yield self._module
        finally:
            for name in [name for name in os.environ if name.startswith("WANDB_")]:
                del os.environ[name]
            os.environ.update(before)


class Live:
    """A run that is being written."""

    def __init__(self, client: Client, run: Any, notes: str) -> None:
        self._client = client
        self._run = run
        self._notes = notes
        self._rows = 0

    @property
    def folder(self) -> Path:
        return Path(self._run.settings.sync_dir)

    def advance(self, content: Content) -> None:
        """Write what the run has gained.

        Raises:
            HpoError: an earlier upload was given up.
        """
        if lost := self._lost():
            raise HpoError(f"not everything was uploaded: {lost}")
        with self._client.fenced():
            for step, row in enumerate(content.rows[self._rows :], self._rows):
                # Only what is committed is shown; otherwise a row waits for the next.
                self._run.log(dict(row), step=step, commit=True)
            self._rows = len(content.rows)
            self._run.summary.update(dict(content.summary))

    def finish(self, content: Content) -> None:
        """Write all and close the run.

        Raises:
            HpoError: not everything was uploaded.
        """
        self.advance(content)
        with self._client.fenced():
            if content.notes != self._notes:
                self._run.notes = content.notes
            if content.table is not None:
                rows = [list(row) for row in content.table.rows]
                self._run.log({TABLE: self._client.table(content.table.columns, rows)}, step=self._rows)
            self._close(content.exit_code or 0)
        if lost := self._lost():
            raise HpoError(f"not everything was uploaded: {lost}")

    def drop(self) -> None:
        """Close a run that will be written anew."""
        with self._client.fenced(), contextlib.suppress(Exception):
            self._run.finish(exit_code=1)

    def _close(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError as error:
            raise HpoError(f"the upload takes more than {_SHORT['finish_timeout']:g} s") from error

    def _lost(self) -> str | None:
        """Why an upload was given up, in the words of the run's log."""
        try:
            text = Path(self._run.settings.log_internal).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return next((_plain(line) for line in text.splitlines() if any(word in line for word in _LOST)), None)


def library() -> Any:
    """The package.

    Raises:
        HpoError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise HpoError(f"W&B's package cannot be imported ({error}); pip install 'wandb>=0.31'") from error
    return wandb


def _told(error: Exception) -> HpoError:
    text = _plain(str(error) or type(error).__name__)
    if "previously created and deleted" in text:
        return Gone(text)
    if re.search(r"not logged in|API key|api_key|\b401\b|\b403\b|permission denied", text, re.IGNORECASE):
        return Refusal(f"W&B refuses the key: {text}")
    return HpoError(text)


def _plain(text: str) -> str:
    """The reason alone, where the words around it only repeat it."""
    found = re.search(r"connection refused|no such host|i/o timeout|timed out|\b\d{3} [A-Z]\w+(?: [A-Z]\w+)*", text)
    return found[0] if found else spelling.cut(" ".join(text.split()), 200)
