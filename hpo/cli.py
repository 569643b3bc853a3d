"""The command line: each command a few lines over one function of another room.

Imports of other rooms stand inside the commands: `hpo --help` must not wait for Optuna, nor `hpo check` for
torch. Exit codes: 0 done, 1 the work failed, 2 the command or a file is wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from hpo.errors import HpoError, SweepError, UserError

app = typer.Typer(
    help="Experiment-tracking hyperparameter search for language models.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def _studies(typed: str) -> list[str]:
    from hpo.journal import study_names

    folder = Path(os.environ.get("HPO_STUDIES", "studies"))
    return [name for name in study_names(folder) if name.startswith(typed)]


SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file, such as sweeps/quickstart.yaml.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A study's name.", autocompletion=_studies)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override the sweep: a setting (tokens=1000) or a section's key (search.seed=1).",
    ),
]
Studies = Annotated[Path, typer.Option("--studies", envvar="HPO_STUDIES", help="Where studies live.")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="How many trials in all, the baseline included.")]
Slots = Annotated[int | None, typer.Option("--slots", min=1, help="How many trials run at once.")]
IsInline = Annotated[
    bool,
    typer.Option("--inline", help="Run trials in this process, one at a time, for debugging (pdb works)."),
]
DEFAULT_STUDIES = Path("studies")


@app.command()
def check(sweep: SweepFile, set_: Set = None) -> None:
    """Check a sweep and show what it would run, without training anything."""
    from hpo.check import sweep_view
    from hpo.run import read_sweep

    _, plan = read_sweep(sweep, set_ or [])
    console.print(sweep_view(plan))


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
    inline: IsInline = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Go on with an interrupted study, or extend a finished one with --trials."""
    from hpo.journal import find_study
    from hpo.run import conduct, reopen

    folder = find_study(studies, name)
    plan = reopen(folder, trials)
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
            f"Stopped at once. Go on from the last checkpoints:  hpo resume {root.name}{_at(root)}",
            markup=False,
        )
        raise typer.Exit(130) from None


def _at(root: Path) -> str:
    return "" if root.parent == DEFAULT_STUDIES else f" --studies {root.parent}"


def _finish(state: str, root: Path) -> None:
    """The last words of a run: what was found, and the next two commands."""
    from hpo.journal import StudyFolder
    from hpo.report import Summary, study_view

    folder = StudyFolder(root)
    summary = Summary.read(folder)
    at = _at(root)
    console.print()
    console.print(study_view(summary))
    console.print()
    if state == "interrupted":
        console.print(f"Interrupted; nothing is lost. Go on with it:  hpo resume {folder.name}{at}", markup=False)
        raise typer.Exit(130 if summary.history.reason == "Ctrl-C" else 0)
    if summary.best is None:
        raise HpoError(f"no trial of study {folder.name!r} was trained in full; hpo show {folder.name}{at} says why.")
    console.print(f"Look at it:  hpo ui {folder.name}{at}", markup=False)
    console.print(f"Promote it:  hpo promote {folder.name}{at}", markup=False)


@app.command(name="list")
def list_(studies: Studies = DEFAULT_STUDIES) -> None:
    """List the studies there are."""
    from hpo.journal import StudyFolder, study_names
    from hpo.report import Summary, study_table

    names = study_names(studies)
    if not names:
        console.print(f"No studies in {studies} yet. Begin one: hpo run sweeps/quickstart.yaml", markup=False)
        return
    console.print(study_table([Summary.read(StudyFolder(studies / name)) for name in names]))


@app.command()
def show(
    name: Name,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="A trial's number.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Show a study, or one trial of it."""
    from hpo import report
    from hpo.journal import find_study

    summary = report.Summary.read(find_study(studies, name))
    record = None
    if trial is not None:
        record = summary.history.trials.get(trial)
        if record is None:
            raise UserError(f"study {name!r} has no trial {trial}; it has 0 to {len(summary.trials) - 1}.")
    if as_json:
        content = report.study_json(summary) if record is None else report.trial_json(summary, record)
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    console.print(report.study_view(summary) if record is None else report.trial_view(summary, record))


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
    sys.exit(0)
