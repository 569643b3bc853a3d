"""The commands that look at what is there: `hpo list`, `hpo show`, `hpo replay`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpo.arguments import DEFAULT_STUDIES, Name, Studies, console, errors, study_names_that_begin
from hpo.errors import UserError

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(name="list")
def list_(studies: Studies = DEFAULT_STUDIES) -> None:
    """List the studies there are."""
    from hpo.folder import StudyFolder, study_names
    from hpo.report import study_table
    from hpo.summary import Summary

    names = study_names(studies)
    if not names:
        console.print(f"No studies in {studies} yet. Begin one: hpo run sweeps/quickstart.yaml", markup=False)
        return
    readable = []
    for name in names:
        try:
            readable.append(Summary.read(StudyFolder(studies / name)))
        except UserError as error:
            errors.print(f"{name}: {error}", markup=False, soft_wrap=True)
    console.print(study_table(readable))


@app.command()
def show(
    name: Name,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="A trial's number.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Show a study, or one trial of it."""
    from hpo import report
    from hpo.folder import find_study
    from hpo.membership import refresh
    from hpo.promote import promotions
    from hpo.summary import Summary

    folder = find_study(studies, name)
    summary = Summary.read(folder)
    if summary.record.shared is not None:
        if stale := refresh(folder):
            errors.print(stale, style="yellow", markup=False, soft_wrap=True)
        summary = Summary.read(folder)
    record = None
    if trial is not None:
        record = summary.history.trials.get(trial)
        if record is None:
            raise UserError(f"study {name!r} has no trial {trial}; it has 0 to {len(summary.trials) - 1}.")
    if as_json:
        content = report.study_json(summary) if record is None else report.trial_json(summary, record)
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    if record is None:
        console.print(report.study_view(summary, promotions(folder)))
    else:
        console.print(report.trial_view(summary, record))


@app.command()
def replay(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|TABLE",
            help="A finished study's name, a file of recorded trials (FILE or FILE#TABLE), or synthetic:SEED.",
            autocompletion=study_names_that_begin,
        ),
    ],
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", help="To try, with options after commas (auto,startup=8). Again for more."),
    ] = None,
    pruner: Annotated[
        list[str] | None,
        typer.Option("--pruner", help="To try (successive halving,reduction_factor=4). Again for more."),
    ] = None,
    rungs: Annotated[
        str | None, typer.Option("--rungs", help="Where trials are compared, as shares of a whole one: 1/9,1/3,1.")
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Searches of each strategy, each with its seed.")
    ] = 20,
    slots: Annotated[int, typer.Option("--slots", min=1, max=64, help="Trials at once, in simulated time.")] = 1,
    budget: Annotated[
        float, typer.Option("--budget", min=0.1, help="What a search may cost, in whole trainings.")
    ] = 20.0,
    answers: Annotated[
        str, typer.Option("--answers", help="What answers for what was not recorded: nearest, model.")
    ] = "nearest",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write what each found over its cost as a picture (.svg or .png).")
    ] = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Search a finished study or a recorded table again: what other samplers and stopping rules would have found."""
    from hpo import backtest
    from hpo.replay import telling
    from hpo.replay.contest import Terms
    from hpo.run import waiting

    if plot is not None and (plot.suffix not in (".svg", ".png") or not plot.parent.is_dir()):
        raise UserError(f"--plot {plot}: requires a name that ends in .svg or .png, in a folder that is there.")
    found = backtest.target(what, studies)
    shares = backtest.shares(rungs)
    backtests, searches = backtest.entrants(
        sampler or [], pruner or [], shares, is_study=found.is_study, curves=found.table.has_curves,
        weighs=bool(found.table.others),
    )  # fmt: skip
    table, validated = backtest.answering(found.table, answers)
    for line in telling.about(table, found.guessed, found.error):
        console.print(line, markup=False, soft_wrap=True)
    if backtests:
        with waiting(console, "replaying the recorded trials"):
            results = list(backtest.run(found.table, backtests, Terms(repeats, slots, None)))
        console.print()
        console.print(telling.backtest_view(results))
    with waiting(console, f"searching {len(searches)} x {repeats} times"):
        results = list(backtest.run(table, searches, Terms(repeats, slots, budget)))
    console.print()
    console.print(telling.contest_view(results, validated))
    if plot is not None:
        telling.plot(results, plot)
        console.print(f"wrote {plot}", markup=False)
