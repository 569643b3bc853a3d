"""A file of texts in, a file of predictions out, and how good they are where the file says what is right.

Reads .txt, .jsonl, .csv and .parquet and writes JSON lines or CSV, whole or not at all. Knows nothing of models:
what a row of results holds is the serving module's.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hpo.deployment import Served
from hpo.errors import UserError, did_you_mean
from hpo.wording import number

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
OUTPUTS = (".jsonl", ".csv")
_PROGRESS_SECONDS = 5.0

# Control characters that JSON would leave as they are; a terminal might obey them.
_CONTROL = re.compile(r"[\x7f-\x9f]")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a file asks for.

    Attributes:
        inputs: what the model reads.
        targets: what is right for each, or None where the file does not say.
        empty: how many rows were left out for having no text.
    """

    inputs: list[Any]
    targets: list[Any] | None
    empty: int


def read(file: Path, columns: Mapping[str, str | None], column: str | None = None) -> Examples:
    """Read a file.

    Args:
        columns: {"input", "target"}: what the model's data call the column it reads, and the one with what is right
            (None: nothing is).
        column: the one to read instead of the model's own.

    Raises:
        UserError: the file, its format, a line or the column is not as it has to be, or nothing is in it.
    """
    if not file.is_file():
        raise UserError(f"no file {file}.")
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"{file}: expected a file that ends in {', '.join(SUFFIXES)}, got {file.suffix or 'no suffix'!r}."
        )
    wanted = column or str(columns["input"])
    target = columns["target"]
    try:
        if file.suffix == ".txt":
            rows: list[dict[str, Any]] = [{wanted: line} for line in _text(file).split("\n")]
            if rows and not rows[-1][wanted]:
                rows.pop()  # the end of the last line begins no other
        else:
            rows = list({".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[file.suffix](file))
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: must be UTF-8, got byte {error.object[error.start]:#04x} at {error.start}.") from None
    if not rows:
        raise UserError(f"{file} is empty.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if wanted not in names:
        raise UserError(f"{file} has no column {wanted!r}.{did_you_mean(wanted, names)} --column names another.")
    filled = [(place, row) for place, row in enumerate(rows, start=1) if not _is_empty(row.get(wanted))]
    if not filled:
        raise UserError(f"{file}: column {wanted!r} is empty in every row.")
    for place, row in filled:
        _check_unicode(row[wanted], f"{file}: row {place}")
    targets = None
    if target is not None and target in names:
        without = [place for place, row in filled if row.get(target) is None]
        if without:
            raise UserError(f"{file}: row {without[0]} has no {target!r}, which other rows have. Give all or none.")
        targets = [row[target] for _, row in filled]
    return Examples([row[wanted] for _, row in filled], targets, len(rows) - len(filled))


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    for place, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}:{place}: not valid JSON: {error}.") from None
        if not isinstance(row, dict):
            raise UserError(f"{file}:{place}: expected a JSON object, got {type(row).__name__}.")
        yield row


def _csv(file: Path) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UserError(f"{file}:{reader.line_num}: has other columns than the first line names.")
            yield dict(row)
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not valid CSV: {error}.") from None


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as parquet: {str(error).splitlines()[0]}.") from None
    yield from table.to_pylist()


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", []) or (isinstance(value, str) and not value.strip())


def _check_unicode(value: Any, where: str) -> None:
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: must be valid Unicode, got a lone surrogate.") from None


def predict(
    served: Served,
    examples: Examples,
    write: Callable[[Mapping[str, Any]], None],
    *,
    batch_size: int,
    beams: int | None,
    say: Say,
) -> dict[str, float]:
    """Predict every input, giving each row to `write` as it is there.

    Returns:
        Metrics, of what can be measured.

    Raises:
        UserError: the model cannot take an input or a target; targets are looked at before anything is predicted.
    """
    try:
        read = _dialogues if served.converses else list[Any]
        inputs = read(examples.inputs)
        targets = None if examples.targets is None else served.targets(read(examples.targets))
        rows: list[dict[str, Any]] = []
        told = time.monotonic()
        for row in served.rows(inputs, batch_size=batch_size, beams=beams):
            write(row)
            rows.append(row)
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                say(f"{len(rows):,} of {len(inputs):,}")
        return served.score(rows, targets)
    except ValueError as error:
        raise UserError(str(error)) from error


def _dialogues(values: Sequence[Any]) -> list[Any]:
    """In a cell of CSV a dialogue is JSON; a text that is none is what the user says."""
    read = []
    for value in values:
        if isinstance(value, str) and value.lstrip().startswith("["):
            with contextlib.suppress(ValueError):
                value = json.loads(value)
        read.append(value)
    return read


@contextlib.contextmanager
def output(file: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Where rows are written: standard output as JSON lines, or a file in the format of its suffix, which appears
    whole when all is done.

    Raises:
        UserError: the file's suffix is no format, or its folder is not there.
    """
    if file is None:
        yield _print
        return
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as opened:
            yield _table(opened) if file.suffix == ".csv" else lambda row: _line(opened, row)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(file: Path | None) -> None:
    """Raises UserError where `output` could not write, before a model is loaded for nothing."""
    if file is None:
        return
    if file.suffix not in OUTPUTS:
        raise UserError(f"--output {file}: expected a name that ends in {' or '.join(OUTPUTS)}.")
    if not file.parent.is_dir():
        raise UserError(f"--output {file}: there is no folder {file.parent}.")


def _print(row: Mapping[str, Any]) -> None:
    _line(sys.stdout, row)
    sys.stdout.flush()


def _line(opened: TextIO, row: Mapping[str, Any]) -> None:
    text = json.dumps(row, ensure_ascii=opened.encoding.lower().replace("-", "") != "utf8")
    opened.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def _table(opened: TextIO) -> Callable[[Mapping[str, Any]], None]:
    """CSV with the first row's names on top; what is no plain value is JSON in its cell."""
    writers: list[csv.DictWriter[str]] = []

    def write(row: Mapping[str, Any]) -> None:
        if not writers:
            writers.append(csv.DictWriter(opened, list(row), lineterminator="\n"))
            writers[0].writeheader()
        writers[0].writerow({name: _cell(value) for name, value in row.items()})

    return write


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)


def metrics_lines(metrics: Mapping[str, float]) -> Iterable[str]:
    """Metrics as people read them, those of single labels last."""
    return [f"{name.removeprefix('test/')}: {number(metrics[name])}" for name in sorted(metrics, key=_order)]


def _order(name: str) -> tuple[bool, str]:
    return name.count("/") > 1, name
