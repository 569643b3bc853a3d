"""What the commands take, and where they print: arguments and options that several of them share.

Knows nothing of what a command does. Nothing heavy is imported here: `hpo --help` waits for it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Without a terminal there is no width to keep to; tables must not be cut at eighty columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False)


def study_names_that_begin(typed: str) -> list[str]:
    from hpo.folder import study_names

    folder = Path(os.environ.get("HPO_STUDIES", "studies"))
    return [name for name in study_names(folder) if name.startswith(typed)]


SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file, such as sweeps/quickstart.yaml.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A study's name.", autocompletion=study_names_that_begin)]
OptionalName = Annotated[
    str | None, typer.Argument(metavar="NAME", help="A study's name.", autocompletion=study_names_that_begin)
]
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


def at(root: Path) -> str:
    """The option that a suggested command needs to find a study again, or nothing."""
    return "" if root.parent == DEFAULT_STUDIES else f" --studies {shlex.quote(str(root.parent))}"
