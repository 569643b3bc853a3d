"""The command line: each command a few lines over one function of another room.

Imports of other rooms stand inside the commands: `hpo --help` must not wait for Optuna, nor `hpo check` for
torch. Exit codes: 0 done, 1 the work failed, 2 the command or a file is wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hpo import exchange, inspection, usage
from hpo.arguments import (
    DEFAULT_STUDIES,
    IsInline,
    Name,
    OptionalName,
    Set,
    Slots,
    Studies,
    SweepFile,
    Trials,
    at,
    console,
    errors,
)
from hpo.errors import HpoError, SweepError, UserError

app = typer.Typer(
    help="Experiment-tracking hyperparameter search for language models.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def check(
    sweep: SweepFile,
    set_: Set = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Whether to read the data too, and show what it is like.")
    ] = True,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few steps of some configurations, and forecast what all will cost.")
    ] = False,
    slots: Slots = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Check a sweep and show what it would run; with --probe, what it will cost too."""
    from hpo import notification, warming
    from hpo.check import data_view, described, forecast, sweep_view, uncompared
    from hpo.run import read_sweep, waiting

    _, plan = read_sweep(sweep, set_ or [])
    learned = warming.learn(plan, studies)
    console.print(sweep_view(warming.suggested(plan, learned)))
    for line in (*warming.sentences(learned, plan.sweep.search.sampler.name), *notification.cautions(plan.sweep)):
        console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)
    if data and plan.objective.has("describe"):
        with waiting(console, "reading the data, which is then kept for the trials"):
            description = described(plan)
        console.print(data_view(description))
    if data:  # how long a trial is may depend on it
        for line in uncompared(plan):
            console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)
    if probe:
        forecast(plan, slots, console)
    console.print(f"\n{sweep} is in order. Run it:  hpo run {sweep}", style="green", markup=False)


@app.command()
def run(
    sweep: SweepFile,
    name: Annotated[str | None, typer.Option("--name", help="Name of the study; the sweep file's by default.")] = None,
    trials: Trials = None,
    slots: Slots = None,
    set_: Set = None,
    inline: IsInline = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Run a sweep as a new study."""
    from hpo.run import conduct, create

    assignments = list(set_ or [])
    if trials is not None:
        assignments.append(f"search.trials={trials}")
    plan, folder = create(sweep, studies, name, assignments)
    with _stoppable(folder.root):
        state = conduct(plan, folder, console=console, slots=slots, inline=inline)
    _finish(state, folder.root)


@app.command()
def resume(
    name: Name,
    trials: Trials = None,
    slots: Slots = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change how the study is carried out, not what it searches (budget.gpu_hours=20).",
        ),
    ] = None,
    inline: IsInline = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Go on with an interrupted study, or extend a finished one with --trials."""
    from hpo.folder import find_study
    from hpo.run import conduct, reopen

    folder = find_study(studies, name)
    plan = reopen(folder, trials, set_ or [])
    with _stoppable(folder.root):
        state = conduct(plan, folder, console=console, slots=slots, inline=inline)
    _finish(state, folder.root)


@app.command()
def join(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study's name in the database.")],
    storage: Annotated[
        str,
        typer.Option("--storage", metavar="ADDRESS", help="The database, as in the sweep: postgresql://user@host/db."),
    ],
    sweep: Annotated[
        Path | None, typer.Option("--sweep", help="Where its sweep lies here; its objective is beside it.")
    ] = None,
    slots: Slots = None,
    inline: IsInline = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Work on a study that runs elsewhere too, through the database that its sweep names."""
    from hpo.joining import join
    from hpo.run import conduct

    plan, folder = join(name, storage, studies, sweep)
    with _stoppable(folder.root):
        state = conduct(plan, folder, console=console, slots=slots, inline=inline)
    _finish(state, folder.root)


@contextlib.contextmanager
def _stoppable(root: Path) -> Iterator[None]:
    """A second Ctrl-C ends the command at once, with one line instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print(
            f"Stopped at once. Go on from the last checkpoints:  hpo resume {root.name}{at(root)}",
            markup=False,
        )
        raise typer.Exit(130) from None


def _finish(state: str, root: Path) -> None:
    """The last words of a run: what was found, and the next two commands."""
    from hpo.folder import StudyFolder
    from hpo.report import study_view
    from hpo.summary import Summary

    folder = StudyFolder(root)
    summary = Summary.read(folder)
    where = at(root)
    console.print()
    console.print(study_view(summary))
    console.print()
    if state == "interrupted":
        reason = summary.history.reason
        more = " --set budget.KEY=VALUE" if reason.startswith("its budget") else ""
        line = f"Interrupted; nothing is lost. Go on with it:  hpo resume {folder.name}{where}{more}"
        console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(130 if summary.history.reason in ("Ctrl-C", "SIGTERM") else 0)
    if summary.best is None:
        repeats = any(trial.repeat and trial.state == "complete" for trial in summary.trials)
        but = " but repeats of the baseline" if repeats else ""
        raise HpoError(
            f"no trial of study {folder.name!r}{but} was trained in full; hpo show {folder.name}{where} says why."
        )
    console.print(f"Look at it:  hpo ui {folder.name}{where}", markup=False)
    which = " [--trial N of the front]" if len(summary.front) > 1 else ""
    console.print(f"Promote it:  hpo promote {folder.name}{where}{which}", markup=False)


@app.command()
def ui(
    name: OptionalName = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="On this machine only (127.0.0.1).")] = 5000,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Start the MLflow UI and print the link that opens a study; of W&B, the page or what uploads to it."""
    from hpo.folder import StudyFolder, StudyRecord, find_study
    from hpo.operation import MlflowSettings
    from hpo.track import words
    from hpo.track.mlflow.pages import front_page, study_page
    from hpo.track.mlflow.server import serve_ui
    from hpo.track.mlflow.store import tracking_uri

    record = None if name is None else StudyRecord.read(find_study(studies, name))
    if record is not None:
        for line in words.wandb_page(StudyFolder(studies / record.name), record):
            console.print(line, markup=False, soft_wrap=True)
    if record is not None and record.mlflow is None:
        if record.wandb is not None:
            return
        raise words.without_mlflow(record)
    settings = MlflowSettings() if record is None or record.mlflow is None else MlflowSettings(**record.mlflow)
    uri = tracking_uri(settings, studies)
    console.print("starting the MLflow UI, which takes some seconds")
    with serve_ui(uri, port) as server:
        if server.asked_port_taken:
            console.print(f"port {port} is taken by another program; using a free one", style="yellow")
        page = front_page(server.url) if record is None else study_page(uri, server.url, record)
        console.print(page, markup=False, soft_wrap=True)
        if server.process is not None:
            console.print("Ctrl-C stops it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


@app.command()
def sync(name: Name, studies: Studies = DEFAULT_STUDIES) -> None:
    """Bring the trackers up to a study's journal, after one was down or slow."""
    from hpo.folder import find_study
    from hpo.track import pump, words

    folder = find_study(studies, name)
    for line in pump.sync_all(folder):
        console.print(f"{name}: {line}", markup=False, soft_wrap=True)
    for line in words.next_steps(folder):
        console.print(line, markup=False, soft_wrap=True)


@app.command()
def promote(
    name: Name,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Which trial; the best by default.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the full run (tokens=10000000)."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name in the registry; the sweep's by default.")] = None,
    slots: Slots = None,
    inline: IsInline = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Train a trial's configuration in full, test it on unseen data, and register the model."""
    from hpo.folder import find_study
    from hpo.promote import draft
    from hpo.registration import carry, publish
    from hpo.report import promotion_view
    from hpo.run import reopened, train_in_full, waiting

    folder = find_study(studies, name)
    plan = reopened(folder)
    promotion, place = draft(plan, folder, trial, set_ or [])
    try:
        promotion = train_in_full(plan, folder, promotion, place, console=console, slots=slots, inline=inline)
    except KeyboardInterrupt:
        errors.print(f"Stopped at once. The same command goes on:  hpo promote {name}{at(folder.root)}", markup=False)
        raise typer.Exit(130) from None
    with waiting(console, "registering the model"):
        promotion = publish(promotion, place, folder, plan.objective, model)
        trouble = carry(folder)
    if trouble:
        console.print(trouble, style="yellow", markup=False, soft_wrap=True)
    console.print()
    console.print(promotion_view(promotion, place.root / "model"))
    console.print(f"\nLook at it:  hpo ui {name}{at(folder.root)}", markup=False)
    if getattr(plan.objective.module, "SERVING", None):
        console.print(f"Use it:      hpo serve {name}{at(folder.root)}", markup=False)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Of a shared study, delete what the database has of it too.")
    ] = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Delete a study: its folder, and its runs in the tracker. Registered models stay."""
    from hpo.folder import StudyRecord, delete_study, find_study, locked
    from hpo.membership import remove
    from hpo.registration import forget

    folder = find_study(studies, name)
    if everywhere and StudyRecord.read(folder).shared is None:
        raise UserError(f"study {name!r} is not shared; leave out --everywhere.")
    with locked(folder):
        if not yes:
            typer.confirm(f"Delete study {name} in {folder.root}, its trials and promotions?", abort=True)
        if everywhere:
            remove(folder)
        trouble = forget(folder)
        delete_study(folder)
    if trouble:
        console.print(f"its runs in the tracker are still there: {trouble}", style="yellow")
    console.print(f"deleted {name}")


app.add_typer(inspection.app)
app.add_typer(exchange.app)
app.add_typer(usage.app)


def main() -> NoReturn:
    """Entry point of the `hpo` command."""
    try:
        app()
    except SweepError as error:
        # Each mistake begins with its own file:line, as compilers print them, so that editors can jump there.
        errors.print(str(error), markup=False, soft_wrap=True)
        count = len(error.mistakes)
        errors.print(f"{count} mistake{'s' if count > 1 else ''}; nothing was started.", style="red")
        sys.exit(error.exit_code)
    except HpoError as error:
        errors.print(f"hpo: {error}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)  # whoever read our output has gone
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        errors.print(f"hpo: {error.strerror or error}{where}", markup=False, soft_wrap=True)
        sys.exit(1)
    sys.exit(0)
