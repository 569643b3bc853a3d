"""Carry one study from its sweep to its end: make its folder, open what it needs, search, close.

The place where the rooms are put together; each does its own part. Knows no Optuna, no MLflow, no terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.metadata
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from hpo import membership, notification, warming
from hpo.errors import HpoError, Stopped, UserError
from hpo.folder import StudyFolder, StudyRecord, locked, new_study, write_atomically
from hpo.journal import History
from hpo.launch import Launcher
from hpo.launch.devices import Layout, cores, gpus, layout
from hpo.launch.inline import Inline
from hpo.launch.processes import Processes
from hpo.plan import Plan
from hpo.promote import Given, Promotion, test
from hpo.session import Terms, drive
from hpo.sharing import SharedJournal
from hpo.spending import Rates
from hpo.study import Study, plan
from hpo.sweep import Sweep
from hpo.track import pump, words
from hpo.track.mlflow.store import tracking_uri
from hpo.trials import compared_at

_PACKAGES = ("hpo", "optuna", "mlflow", "torch", "transformers", "datasets", "accelerate")
_CHANGEABLE = ("budget.", "launch.", "on_failure.", "notify.", "search.time_limit")
_CATCH_UP_SECONDS = 60.0


def versions() -> dict[str, str]:
    """Of Python and the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def read_sweep(path: Path, assignments: Sequence[str]) -> tuple[str, Plan]:
    """A sweep file's text, and the checked plan.

    Raises:
        UserError: the file cannot be read, or has mistakes (SweepError).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(found) for found in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise UserError(f"no sweep file {path}.{' There is ' + ', '.join(near) + '.' if near else ''}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}.") from None
    return text, plan(text, path, assignments)


def create(path: Path, studies: Path, name: str | None, assignments: Sequence[str]) -> tuple[Plan, StudyFolder]:
    """Make a study's folder from a sweep.

    Raises:
        UserError: the sweep has mistakes, the name is not allowed, or a study has it already.
    """
    text, planned = read_sweep(path, assignments)
    folder = new_study(studies, name or path.stem)
    if planned.sweep.mlflow is not None:
        tracking_uri(planned.sweep.mlflow, studies)  # an address that cannot be one is refused now, not hours later
    notification.address(planned.sweep)
    if planned.sweep.storage is not None:
        membership.refuse_taken(folder.name, planned.sweep.storage.address)
    learned = warming.learn(planned, studies)
    try:
        make(folder, text, _record(planned, folder, path, assignments), learned)
    except FileExistsError as error:
        raise UserError(f"{error.filename} is there already and is no study. Use --name or --studies.") from None
    except OSError as error:
        raise UserError(f"cannot write to {studies}: {error.strerror}. Use --studies.") from None
    return planned, folder


def make(folder: StudyFolder, text: str, record: StudyRecord, learned: Sequence[warming.Source] = ()) -> None:
    """Put a new study in its place whole or not at all: half of one could be neither run nor resumed."""
    if folder.root.exists():  # what it holds is not ours
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder.root))
    made = StudyFolder(folder.root.parent / ".new" / f"{folder.name}.{os.getpid()}")
    made.root.mkdir(parents=True)
    try:
        write_atomically(made.sweep, text)
        record.write(made)
        if learned:
            warming.write(made.warm, learned)
        made.root.rename(folder.root)
    finally:
        shutil.rmtree(made.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            made.root.parent.rmdir()


def _record(planned: Plan, folder: StudyFolder, path: Path, assignments: Sequence[str]) -> StudyRecord:
    sweep = planned.sweep
    return StudyRecord(
        name=folder.name,
        id=uuid.uuid4().hex,
        created=time.time(),
        sweep_name=path.stem,
        origin=str(path.resolve()),
        where=str(Path.cwd()),
        assignments=list(assignments),
        objective=sweep.objective,
        metric={"name": sweep.metric.name, "direction": sweep.metric.direction.value, "at": sweep.metric.at},
        tradeoff=[{"name": one.name, "direction": one.direction.value} for one in sweep.tradeoff.others],
        search={
            "sampler": str(planned.search.sampler),
            "pruner": str(planned.search.pruner),
            "trials": sweep.search.trials,
            "seed": sweep.search.seed,
            "rungs": [rung if isinstance(rung, int) else str(rung) for rung in planned.rungs],
        },
        fixed=dict(planned.fixed),
        space={parameter.name: str(parameter.dimension) for parameter in planned.space.parameters},
        facts={},
        versions=versions(),
        mlflow=None
        if sweep.mlflow is None
        else {**dataclasses.asdict(sweep.mlflow), "tracking_uri": _address(sweep, folder)},
        wandb=None if sweep.wandb is None else dataclasses.asdict(sweep.wandb),
        shared=None if sweep.storage is None else {"address": sweep.storage.address, "place": membership.new_place()},
    )


def _address(sweep: Sweep, folder: StudyFolder) -> str | None:
    """The tracking address to keep with the study, so that it is found again when the environment has changed.

    The store beside the studies is kept as None, since studies may be moved with it; an address with a password in
    it is not written down at all.
    """
    assert sweep.mlflow is not None
    given = sweep.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return None if given is None or urlsplit(given).password else tracking_uri(sweep.mlflow, folder.root.parent)


def reopen(folder: StudyFolder, trials: int | None, changes: Sequence[str] = ()) -> Plan:
    """The plan of an existing study, from its own copy of the sweep.

    Args:
        folder: of the study.
        trials: how many in all; None: as before.
        changes: `--set` overrides of how it is carried out, kept for later runs too.

    Raises:
        UserError: nothing is left to do, a change is one of the search itself, or the sweep no longer fits its
            objective.
    """
    record = StudyRecord.read(folder)
    for change in changes:
        if not change.startswith(_CHANGEABLE):
            allowed = ", ".join(name.rstrip(".") for name in _CHANGEABLE)
            raise UserError(
                f"--set {change}: what a study searches stays as it is, so that its trials compare; {allowed} may "
                "change. Begin another study for the rest."
            )
    if record.shared is not None:
        with locked(folder):
            membership.catch_up(folder)
    history = History.read(folder.journal)
    asked = record.search["trials"] if trials is None else trials
    if trials is not None and trials < len(history.trials):
        raise UserError(f"study {folder.name!r} has {len(history.trials)} trials already; --trials counts them all.")
    if len(history.ended) >= asked and not history.unfinished:
        raise UserError(
            f"study {folder.name!r} has its {asked} trials; nothing is left to resume. "
            f"To extend it: hpo resume {folder.name} --trials {asked + 10}."
        )
    if trials is not None and trials != record.search["trials"]:
        search = {**record.search, "trials": trials}
        assignments = [text for text in record.assignments if not text.startswith("search.trials=")]
        record = dataclasses.replace(record, search=search, assignments=[*assignments, f"search.trials={trials}"])
        record.write(folder)
    if not changes:
        return reopened(folder)
    planned = reopened(folder, [*record.assignments, *changes])  # before they are kept: they may be wrong
    kept = [text for text in record.assignments if text.partition("=")[0] not in {c.partition("=")[0] for c in changes}]
    dataclasses.replace(record, assignments=[*kept, *changes]).write(folder)
    return planned


def reopened(folder: StudyFolder, assignments: Sequence[str] | None = None) -> Plan:
    """The plan of an existing study as it is, or with other overrides.

    Raises:
        SweepError: the sweep no longer fits its objective.
    """
    record = StudyRecord.read(folder)
    if record.where not in sys.path:
        sys.path.insert(0, record.where)  # the objective may be importable only from where the study was begun
    try:
        text = folder.sweep.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot read {folder.sweep}: {error.strerror}. A study cannot go on without its sweep."
        ) from None
    overrides = record.assignments if assignments is None else assignments
    return plan(text, Path(record.origin), overrides, name=str(folder.sweep))


def launcher_for(
    planned: Plan, folder: StudyFolder, where: Path, slots: int | None, *, inline: bool
) -> tuple[Launcher, Layout]:
    """Slots on this machine. With `inline`, trials run in this process, one at a time."""
    launch = planned.sweep.launch if slots is None else dataclasses.replace(planned.sweep.launch, slots=slots)
    if inline:
        return Inline(planned.objective), Layout(1, cores(), ())
    shape = layout(launch, gpus(), cores())
    launcher = Processes(
        planned.objective.name,
        planned.sweep.path.parent,
        slots=shape.slots,
        threads=shape.threads,
        gpus=shape.gpus,
        log=folder.server_log,
        where=where,
        memory_bytes=None if launch.memory_gib is None else int(launch.memory_gib * 2**30),
    )
    return launcher, shape


def _where(folder: StudyFolder) -> Path:
    """The folder a study was begun in, if it is still there."""
    where = Path(StudyRecord.read(folder).where)
    return where if where.is_dir() else Path.cwd()


def prepare(planned: Plan, settings: Mapping[str, object], folder: StudyFolder, launcher: Launcher) -> dict[str, Any]:
    """Have the objective prepare its data once, before any trial; what it says of it.

    Raises:
        HpoError: the data is refused; the message is the objective's own.
    """
    if not planned.objective.has("prepare"):
        return {}
    facts = launcher.call("prepare", settings, folder.prepare_log)
    if not isinstance(facts, Mapping):
        raise HpoError(f"prepare of {planned.objective.name} returns facts by name (a dict), got {facts!r}.")
    return dict(facts)


def conduct(
    planned: Plan, folder: StudyFolder, *, console: Console, slots: int | None = None, inline: bool = False
) -> str:
    """Run a study until its trials have ended, its time is over, or the user leaves.

    Returns:
        The state it is left in: "finished" or "interrupted".

    Raises:
        HpoError: preparation failed, trials kept failing alike, or the launcher died.
        KeyboardInterrupt: the user asked to stop at once; the study can be resumed.
    """
    fresh = not folder.journal.exists()
    search = planned.search
    webhook = notification.address(planned.sweep)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        launcher, shape = launcher_for(planned, folder, _where(folder), slots, inline=inline)
        stack.callback(launcher.close)
        settings = planned.settings(planned.baseline)
        try:
            with waiting(console, "importing the objective and preparing its data"):
                facts = prepare(planned, settings, folder, launcher)
                length = (
                    launcher.call("length", settings, folder.prepare_log) if planned.objective.has("length") else None
                )
                warmup = launcher.call("warmup", settings, folder.prepare_log) if planned.objective.has("warmup") else 0
                rungs = compared_at(planned.rungs, length, warmup) or [1]
        except BaseException:
            if fresh:  # nothing was begun: the name is free again
                shutil.rmtree(folder.root)
            raise
        rates = Rates.of(planned.sweep.launch, planned.sweep.budget, len(shape.gpus), launcher.slots)
        record = dataclasses.replace(StudyRecord.read(folder), facts=facts, rates=dataclasses.asdict(rates))
        record.write(folder)
        console.print(f"study {folder.name}: {shape}; {search.sampler}, {search.pruner}")
        for line in planned.reasons:
            console.print(line, markup=False, soft_wrap=True)
        planned = _warmed(planned, folder, facts, console)
        if record.shared is not None:
            _enter(planned, folder, console, fresh=fresh)
        history = History.read(folder.journal)
        study = Study(planned, folder, history, rungs[0])
        pumps = pump.start_all(folder)
        if study.size < record.search["trials"]:
            record = dataclasses.replace(record, search={**record.search, "trials": int(study.size)})
            record.write(folder)
        sweep = planned.sweep
        terms = Terms(
            search.trials,
            search.time_limit_seconds,
            sweep.launch.keep,
            sweep.on_failure,
            planned.objective.divides,
            sweep.budget,
            sweep.notify,
            webhook,
            None if sweep.storage is None else SharedJournal(folder, study, sweep.storage.lost_after_seconds),
            _checkpoint_bytes(sweep.launch.checkpoints_gib, folder),
        )
        try:
            return drive(study, terms, folder, launcher, record, console).state
        finally:
            _catch_up(pumps, folder, console)


def _checkpoint_bytes(gib: float | str, folder: StudyFolder) -> int:
    """What checkpoints of trials that were set aside may take; by itself, a quarter of what is free on the disk."""
    return shutil.disk_usage(folder.root).free // 4 if isinstance(gib, str) else int(gib * 2**30)


def _enter(planned: Plan, folder: StudyFolder, console: Console, *, fresh: bool) -> None:
    """Enter a shared study into its database, or find it there as it is here."""
    settings = planned.objective.schema.settings.values()
    defaults = {setting.name: setting.default for setting in settings if not setting.required}
    try:
        notes = membership.enter(folder, {**defaults, **planned.settings(planned.baseline)})
    except HpoError:
        if fresh:
            shutil.rmtree(folder.root)
        raise
    for note in notes:
        console.print(note, style="yellow", markup=False, soft_wrap=True)


def _warmed(planned: Plan, folder: StudyFolder, facts: Mapping[str, Any], console: Console) -> Plan:
    """The plan with what other studies suggest; said once, before the first trial."""
    learned = warming.read(folder.warm)
    if learned and not folder.journal.exists():
        learned = warming.settled(learned, planned, facts)
        warming.write(folder.warm, learned)
        for line in warming.sentences(learned, planned.sweep.search.sampler.name):
            console.print(line, markup=False, soft_wrap=True)
    return warming.suggested(planned, learned)


@contextlib.contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Say what is being waited for: a spinner in a terminal, one line elsewhere."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(what)
        yield


def _catch_up(pumps: Sequence[pump.Pump], folder: StudyFolder, console: Console) -> None:
    """Let the trackers take what is left; what they cannot is said, and kept for later."""
    if not pumps:
        return
    behind = pumps
    with waiting(console, words.catching_up(pumps)), contextlib.suppress(KeyboardInterrupt):
        behind = pump.finish_all(pumps, _CATCH_UP_SECONDS)
    for each in behind:
        console.print(words.left(each, folder), style="yellow", markup=False, soft_wrap=True)
    for line in words.next_steps(folder):
        console.print(line, markup=False, soft_wrap=True)


def train_in_full(
    planned: Plan,
    folder: StudyFolder,
    promotion: Promotion,
    place: StudyFolder,
    *,
    console: Console,
    slots: int | None = None,
    inline: bool = False,
) -> Promotion:
    """Train a promotion's two runs, test both, and save the winner's model.

    Raises:
        HpoError: the full run is refused, did not end well, or was interrupted (it can be resumed).
        KeyboardInterrupt: the user asked to stop at once.
    """
    record = StudyRecord.read(folder)
    place.root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(place))
        launcher, _ = launcher_for(planned, place, _where(folder), slots, inline=inline)
        stack.callback(launcher.close)
        with waiting(console, "importing the objective and preparing its data"):
            facts = prepare(planned, promotion.settings, place, launcher)
            if planned.objective.has("promotable"):
                launcher.call("promotable", promotion.settings, place.prepare_log)
        promotion = dataclasses.replace(promotion, facts=facts)
        promotion.write(place)
        history = History.read(place.journal)
        with_rungs = planned.objective.has("length")
        given = Given(promotion, planned.sweep.metric, record.search["seed"], history, with_rungs=with_rungs)
        shown = dataclasses.replace(record, name=f"{record.name}, promotion {promotion.number}")
        terms = Terms(2, policy=planned.sweep.on_failure, divides=planned.objective.divides)
        state = drive(given, terms, place, launcher, shown, console)
        if state.state != "finished":
            raise Stopped("interrupted; nothing is lost. The same command goes on.")
        with waiting(console, "testing both models on the test split"):
            return test(promotion, place, launcher, planned.objective)
