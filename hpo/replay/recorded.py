"""Tables from files: sweeps that other people recorded, each file read as it was published, and our own studies.

Which publication a file is from is told by its columns. Files without curves give tables whose trials measure once, at
their end. Knows no strategy.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import UserError
from hpo.folder import StudyFolder
from hpo.journal import History, TrialRecord
from hpo.replay.tables import Point, Row, Table
from hpo.space import Choices, Dimension, FloatRange, IntRange, Parameter, Space
from hpo.tradeoff import Tradeoff
from hpo.trials import Direction, Ending, Metric, Value

Columns = Mapping[str, str]


def read_tables(path: Path) -> list[Table]:
    """The tables of a file.

    Raises:
        UserError: it cannot be read, or is of no publication that is known here.
    """
    try:
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            with path.open(newline="", encoding="utf-8") as file:
                records = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON, one object a line: {error}.") from None
    names = set(records[0]) if records and isinstance(records[0], dict) else set()
    for columns, adapter in _ADAPTERS:
        if columns <= names:
            return adapter(path, records)
    known = "; ".join(", ".join(sorted(columns)) for columns, _ in _ADAPTERS)
    raise UserError(f"{path}: no table that is known here. One is known by its columns: {known}.")


def _log(low: float, high: float) -> FloatRange:
    return FloatRange(low, high, log=True)


def _choices(records: Sequence[Mapping[str, Value]], name: str) -> Choices:
    return Choices(tuple(sorted({record[name] for record in records}, key=lambda value: float(value or 0))))


def _whole(text: str) -> int:
    return int(float(text))


# -- Step Law: learning rate x batch size of language models --------------------------------------------


def _step_law(path: Path, records: Sequence[Columns]) -> list[Table]:
    """Li et al., Predictable Scale: Part I, Step Law (arXiv 2503.04715): a grid for each size and number of tokens."""
    grids: dict[tuple[int, int], list[Columns]] = {}
    for record in records:
        grids.setdefault((int(record["N"]), int(record["D"])), []).append(record)
    tables = []
    for (size, tokens), rows in sorted(grids.items()):
        rates = [float(row["lr"]) for row in rows]
        batches = [int(row["bs"]) for row in rows]
        space = Space(
            (
                Parameter("learning_rate", _log(min(rates), max(rates))),
                Parameter("batch_size", IntRange(min(batches), max(batches), log=True)),
            )
        )
        found = tuple(
            Row(
                {"learning_rate": float(row["lr"]), "batch_size": int(row["bs"])},
                (Point(tokens, float(row["smooth loss"]), float(tokens)),),
                number=number,
            )
            for number, row in enumerate(rows)
        )
        name = f"steplaw-{size / 1e6:.0f}M-{tokens / 1e9:g}B"
        tables.append(Table(name, space, Metric("loss", Direction.MINIMIZE), found, tokens, source=str(path.name)))
    return tables


# -- translation ----------------------------------------------------------------------------------------

_NMT: dict[str, Callable[[str], int | float]] = {
    "bpe_symbols": _whole,
    "num_layers": _whole,
    "num_embed": _whole,
    "ffn_hidden": _whole,
    "attention_heads": _whole,
    "initial_learning_rate": float,
}


def _translations(path: Path, records: Sequence[Columns]) -> list[Table]:
    """Zhang and Duh, Reproducible and Efficient Benchmarks for Hyperparameter Optimization of NMT, TACL 2020."""
    parameters: list[dict[str, Value]] = [
        {name: parse(record[name]) for name, parse in _NMT.items()} for record in records
    ]
    space = Space(tuple(Parameter(name, _choices(parameters, name)) for name in _NMT))
    rows = tuple(
        Row(own, (Point(1, float(record["dev_bleu"]), float(record["dev_gpu_time"])),), number=number)
        for number, (own, record) in enumerate(zip(parameters, records, strict=True))
    )
    metric = Metric("validation/bleu", Direction.MAXIMIZE)
    return [Table(path.stem.replace("_", "-"), space, metric, rows, 1, "trials", "GPU time", path.name)]


_NMT_CURVES = ("bpe", "num_layers", "model_size", "ff_num_hidden", "initial_lr")


def _translation_curves(path: Path, records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Learning curves of such trainings, by checkpoint: Zhang and Duh, AMTA 2024. Each stops by its own patience."""
    languages: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        languages.setdefault(f"{record['src']}-{record['trg']}", []).append(record)
    tables = []
    for name, own in languages.items():
        parameters = [{key: record["hyperparams"][key] for key in _NMT_CURVES} for record in own]
        varying = [key for key in _NMT_CURVES if len({values[key] for values in parameters}) > 1]
        space = Space(tuple(Parameter(key, _choices(parameters, key)) for key in varying))
        rows = tuple(
            Row(
                {key: values[key] for key in varying},
                tuple(
                    Point(checkpoint, math.log(perplexity), float(checkpoint))
                    for checkpoint, perplexity in enumerate(record["perplexity_curve"], start=1)
                ),
                number=number,
            )
            for number, (values, record) in enumerate(zip(parameters, own, strict=True))
        )
        length = max(len(row.points) for row in rows)
        metric = Metric("validation/loss", Direction.MINIMIZE, "best")
        tables.append(Table(f"nmt-curves-{name}", space, metric, rows, length, "checkpoints", "checkpoints", path.name))
    return tables


# -- recurrent cells ------------------------------------------------------------------------------------

_PARTS = ("linear", "blend", "elementwise_prod", "elementwise_sum", "activation_tanh", "activation_sigm",
          "activation_leaky_relu")  # fmt: skip


def _cells(path: Path, records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Klyuchnikov et al., NAS-Bench-NLP, 2020: cells by how many nodes of each kind they have, and parameters."""
    found: list[tuple[dict[str, Value], Mapping[str, Any]]] = []
    for record in records:
        nodes = list(json.loads(record["recepie"]).values())
        parameters: dict[str, Value] = {"parameters": float(record["num_params"])}
        parameters |= {part: sum(node["op"] == part for node in nodes) for part in _PARTS}
        found.append((parameters, record))
    sizes = [float(record["num_params"]) for record in records]
    dimensions: dict[str, Dimension] = {"parameters": _log(min(sizes), max(sizes))}
    for part in _PARTS:
        counts = [int(str(parameters[part])) for parameters, _ in found]
        dimensions[part] = IntRange(min(counts), max(counts))
    rows = tuple(_cell(parameters, record, number) for number, (parameters, record) in enumerate(found))
    space = Space(tuple(Parameter(name, dimension) for name, dimension in dimensions.items()))
    metric = Metric("validation/loss", Direction.MINIMIZE, "best")
    kept = tuple(row for row in rows if row.points)
    return [Table("nasbench-nlp", space, metric, kept, 50, "epochs", "seconds", path.name)]


def _cell(parameters: Mapping[str, Value], record: Mapping[str, Any], number: int) -> Row:
    points: list[Point] = []
    seconds = 0.0
    losses = record["val_losses"]
    for epoch, (loss, took) in enumerate(zip(losses, record["wall_times"], strict=False), start=1):
        seconds += took
        if loss is None or not math.isfinite(loss):
            break
        points.append(Point(epoch, loss, seconds))
    return Row(parameters, tuple(points), diverged=len(points) < 50, number=number)


# -- fine-tuning ----------------------------------------------------------------------------------------


def _lora(path: Path, records: Sequence[Columns]) -> list[Table]:
    """LoRA fine-tuning, learning rate x rank, a table for each base model (Thinking Machines, tinker-cookbook)."""
    models: dict[str, list[Columns]] = {}
    for record in records:
        models.setdefault(record["model"], []).append(record)
    tables = []
    for model, rows in models.items():
        rates, ranks = [float(row["lr"]) for row in rows], [int(row["lora_rank"]) for row in rows]
        if len({*rates}) < 2 or len({*ranks}) < 2:
            continue
        space = Space(
            (
                Parameter("learning_rate", _log(min(rates), max(rates))),
                Parameter("lora.rank", IntRange(min(ranks), max(ranks), log=True)),
            )
        )
        found = tuple(
            Row(
                {"learning_rate": float(row["lr"]), "lora.rank": int(row["lora_rank"])},
                (Point(1, float(row["test_nll"]), float(row["wall_time_min"])),),
                number=number,
            )
            for number, row in enumerate(rows)
        )
        name = f"lora-{model.rpartition('/')[2]}"
        tables.append(
            Table(name, space, Metric("test/nll", Direction.MINIMIZE), found, 1, "trials", "minutes", path.name)
        )
    return tables


_ADAPTERS: tuple[tuple[frozenset[str], Callable[[Path, Sequence[Any]], list[Table]]], ...] = (
    (frozenset({"lr", "bs", "D", "N", "smooth loss"}), _step_law),
    (frozenset({"bpe_symbols", "dev_bleu", "dev_gpu_time"}), _translations),
    (frozenset({"hyperparams", "perplexity_curve", "src", "trg"}), _translation_curves),
    (frozenset({"recepie", "val_losses", "wall_times"}), _cells),
    (frozenset({"model", "lr", "lora_rank", "test_nll"}), _lora),
)


# -- our own --------------------------------------------------------------------------------------------


def study_table(folder: StudyFolder, space: Space, tradeoff: Tradeoff, history: History) -> Table:
    """The trials of a study, the baseline with its first seed. What they cost is the seconds that they trained.

    A table answers a configuration by its first row: the value of a lucky repeat could be found by nobody.

    Raises:
        UserError: no trial was trained to its end.
    """
    searched = [trial for trial in history.ended if not trial.repeat]
    rows = tuple(row for trial in searched if (row := _recorded(trial, tradeoff)) is not None)
    if not any(row.complete and not row.diverged for row in rows):
        raise UserError(f"study {folder.name!r} has no trial that was trained to its end: nothing can be replayed.")
    lengths = [trial.length or trial.progress for trial in searched if trial.ending is Ending.COMPLETE]
    source, others = f"study {folder.name}", tradeoff.others
    return Table(folder.name, space, tradeoff.metric, rows, max(lengths), "tokens", "seconds", source, others=others)


def _recorded(trial: TrialRecord, tradeoff: Tradeoff) -> Row | None:
    if trial.ending not in (Ending.COMPLETE, Ending.STOPPED, Ending.DIVERGED) or not trial.measurements:
        return None
    points = tuple(_points(trial, tradeoff))
    if not points:
        return None
    return Row(
        trial.parameters,
        points,
        complete=trial.ending is not Ending.STOPPED,
        diverged=trial.ending is Ending.DIVERGED,
        number=trial.number,
        warmup=trial.warmup,
    )


def _points(trial: TrialRecord, tradeoff: Tradeoff) -> Iterator[Point]:
    """Its measurements, their cost shared out by progress: the record has the seconds of the whole."""
    rate = max(trial.seconds, 1e-6) / trial.progress
    for measurement in trial.measurements:
        value, *others = (measurement.metrics.get(metric.name, math.nan) for metric in tradeoff.metrics)
        if all(map(math.isfinite, (value, *others))):
            named = dict(zip((metric.name for metric in tradeoff.others), others, strict=True))
            yield Point(measurement.progress, value, rate * measurement.progress, named)
