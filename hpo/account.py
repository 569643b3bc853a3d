"""An account of a study in files that people and other programs read: a report and two tables.

Written once, when a study is exported; nothing reads them back. Knows a study's summary, no file formats of its own.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hpo import repeats, tradeoffs
from hpo.promote import Promotion
from hpo.report import gain
from hpo.summary import Summary
from hpo.wording import duration, number

_ROWS = 100
_CHUNK = 2**16


def _csv(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    for row in rows:
        write(["" if cell is None else cell for cell in row])
        if text.tell() > _CHUNK:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def trials_csv(summary: Summary) -> Iterator[bytes]:
    """One row a trial: number, ending, value, progress, seconds of training, reason, then each parameter."""
    names = list(dict.fromkeys(name for trial in summary.trials for name in trial.parameters))

    def rows() -> Iterator[Sequence[object]]:
        yield ("trial", "ending", "value", "progress", "seconds", "reason", *names)
        for trial in summary.trials:
            row = (trial.number, summary.state_of(trial), trial.value, trial.progress, trial.seconds, trial.reason)
            yield (*row, *(trial.parameters.get(name) for name in names))

    return _csv(rows())


def curves_csv(summary: Summary) -> Iterator[bytes]:
    """One row a measurement: trial, progress, seconds since the epoch, then each metric."""
    names = list(dict.fromkeys(n for trial in summary.trials for m in trial.measurements for n in m.metrics))

    def rows() -> Iterator[Sequence[object]]:
        yield ("trial", "progress", "at", *names)
        for trial in summary.trials:
            for measurement, at in zip(trial.measurements, trial.measured_at, strict=True):
                yield (trial.number, measurement.progress, at, *(measurement.metrics.get(name) for name in names))

    return _csv(rows())


def report(summary: Summary, promotions: Sequence[Promotion]) -> str:
    """The study in Markdown: what was found against the baseline, its trials, its data, its versions."""
    record = summary.record
    endings = Counter(summary.state_of(trial) for trial in summary.trials)
    searched = ", ".join(f"{count} {state}" for state, count in endings.most_common()) or "no trial yet"
    seconds = sum(trial.seconds for trial in summary.trials)
    lines = [
        f"# Study {record.name}", "",
        f"{record.metric['direction']} {record.metric['name']} of `{record.objective}`: {summary.state}, "
        f"{len(summary.history.ended)} of {record.search['trials']} trials ended ({searched}), "
        f"{duration(seconds)} of training.", "",
    ]  # fmt: skip
    if (sentence := gain(summary)) is not None:
        lines += [f"**{sentence}**", ""]
    if said := repeats.sentences(summary):
        lines += [" ".join(said), ""]
    if summary.front:
        found = ", ".join(str(trial.number) for trial in summary.front)
        lines += ["## The front", "", f"Trials {found}. {tradeoffs.sentence(summary)}", ""]
    lines += [*_configurations(summary), *_trials(summary)]
    if promotions:
        lines += ["## Promotions", ""]
        lines += [f"- {p.number}: trial {p.trial}; {_listed(p.test) or 'not finished'}" for p in promotions] + [""]
    lines += ["## How it was searched", "", *(f"- {name}: {_cell(value)}" for name, value in record.search.items()), ""]
    if record.facts:
        lines += ["## Data", "", *(f"- {name}: {_cell(value)}" for name, value in record.facts.items()), ""]
    lines += ["## Versions", "", *(f"- {package} {version}" for package, version in record.versions.items()), ""]
    return "\n".join(lines)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in sorted(values.items()))


def _cell(value: object) -> str:
    text = json.dumps(value) if isinstance(value, list | dict) else number(value, 6)
    return text.replace("|", "\\|").replace("\n", " ")


def _configurations(summary: Summary) -> list[str]:
    """The best configuration beside the baseline, searched settings first."""
    best, baseline = summary.best, summary.baseline
    if best is None or baseline is None:
        return []
    names = list(dict.fromkeys((*summary.record.space, *best.settings)))
    rows = [
        f"| {name}{' (searched)' if name in summary.record.space else ''} | {_cell(best.settings.get(name))} "
        f"| {_cell(baseline.settings.get(name))} |"
        for name in names
    ]
    head = f"| setting | best (trial {best.number}) | baseline |"
    values = f"| {summary.record.metric['name']} | {_cell(best.value)} | {_cell(baseline.value)} |"
    return ["## The best configuration", "", head, "|---|---|---|", values, *rows, ""]


def _trials(summary: Summary) -> list[str]:
    names = list(summary.record.space)
    head = ["trial", "ending", summary.record.metric["name"], "progress", "time", *names]
    rows = []
    for trial in summary.trials[:_ROWS]:
        cells = [trial.number, summary.state_of(trial), trial.value, trial.progress, duration(trial.seconds)]
        row = [*cells, *(trial.parameters.get(name) for name in names)]
        rows.append("| " + " | ".join(_cell(cell) for cell in row) + " |")
    rest = len(summary.trials) - _ROWS
    more = [f"\n{rest} more are in `trials.csv`; every measurement is in `curves.csv`."] if rest > 0 else []
    return ["## Trials", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows, *more, ""]
