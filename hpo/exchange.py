"""The commands that carry a study elsewhere and back: `hpo export`, `hpo import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hpo.arguments import DEFAULT_STUDIES, Name, Studies, at, console

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", help="The archive; NAME.hpo.zip in the current folder by default.")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Pack the best trial's folder and promoted models too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an archive that is there.")] = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Pack a study into one archive, to be read by people or imported elsewhere."""
    from hpo.folder import find_study
    from hpo.relocation import export_study

    path = export_study(find_study(studies, name), output, checkpoints=checkpoints, force=force)
    console.print(f"packed {name} into {path} ({path.stat().st_size:,} bytes)", markup=False)
    console.print(f"Elsewhere:  hpo import {shlex.quote(path.name)}", markup=False)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that hpo export made.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the study here; its own by default.")] = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Make a study from an archive: to look at, to go on with, or to begin others from."""
    from hpo.relocation import import_study

    arrival = import_study(file, studies, name)
    root = arrival.folder.root
    console.print(f"imported {root.name} into {root}", markup=False)
    for note in arrival.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    console.print(f"Look at it:  hpo show {root.name}{at(root)}", markup=False)
