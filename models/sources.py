"""Finding and reading raw text: the built-in sample, local files, data sets of the Hugging Face hub.

`locate` says what a source is made of without reading it; `streams` gives the texts of a corpus, `rows` the
rows of a table. Plain text, parallel files and CSV are read directly; JSON lines, parquet and the hub through
`datasets`, as streams where the files are local. Knows nothing of shares, hashes or tokens: it offers the
splits that the source itself has.
"""

import csv
import glob
import json
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import CRITICAL
from pathlib import Path
from typing import Any

from models import samples
from models.cache import content_hash
from models.configuration import Data, PairData, TextData
from models.errors import DataError, nearest

FORMATS: Mapping[str, str] = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
HUB = "hub:"
HELD_OUT = {"validation", "valid", "val", "dev", "test"}
"""Names of files that nobody wants to train on by mistake."""
HELP_DESK = "sample:help desk"

Stream = Callable[[], Iterator[str]]
"""Starts a fresh pass over texts."""

Row = Mapping[str, Any]
Rows = Callable[[], Iterator[tuple[str, Row]]]
"""Starts a fresh pass over rows, each with its place for people: `train.csv: row 3`."""


@dataclass(frozen=True)
class Source:
    """What a source is made of.

    format: sample, help desk, hub, txt, jsonl, csv, parquet or parallel. files: of a local source, by the split
    they belong to; of a parallel one, those of the source and those of the target in turn.
    """

    format: str
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether its texts are parts of running text; otherwise each is a document of its own."""
        return self.format in ("sample", "txt")

    def content(self, data: Data) -> Any:
        """What tells this source's content from another's, as JSON: hashes of files, names of the rest."""
        if self.format == "hub":
            return [data.source, data.configuration, data.revision]
        if self.format in ("sample", "help desk"):
            return self.format
        hashes = {name: [content_hash(file) for file in files] for name, files in sorted(self.files.items())}
        return [hashes, "csv 2"] if self.format == "csv" else hashes  # 2: how CSV is read


def locate(data: Data) -> Source:
    """What `data.source` names. Reads no file; raises DataError where there is none, or several formats."""
    if data.source == "sample":
        return Source("sample")
    if data.source.startswith("sample:"):
        return _sample(data)
    if data.source.startswith(HUB):
        if not data.source.removeprefix(HUB):
            raise DataError("data.source: a name must follow 'hub:', got none. For example hub:Salesforce/wikitext.")
        return Source("hub")
    if isinstance(data, PairData) and data.source_suffix is not None and data.target_suffix is not None:
        return _parallel(data, data.source_suffix, data.target_suffix)
    files = _files(data, suffixes=tuple(FORMATS) if data.format == "auto" else None)
    formats = {FORMATS.get(path.suffix.lower(), "") for path in files} if data.format == "auto" else {data.format}
    if len(formats) > 1 or "" in formats:
        raise DataError(
            f"data.format: the files of {data.source!r} must have one known suffix "
            f"({', '.join(FORMATS)}), got {', '.join(sorted({path.suffix or 'none' for path in files}))}. "
            "Name fewer files, or set data.format."
        )
    return Source(formats.pop(), _by_split(files, data))


def _sample(data: Data) -> Source:
    """The second built-in text, for language modelling."""
    if data.source != HELP_DESK or not isinstance(data, TextData):
        known = ("sample", HELP_DESK) if isinstance(data, TextData) else ("sample",)
        raise DataError(
            f"data.source: the built-in data is {' or '.join(map(repr, known))}, got {data.source!r}. Name it so."
        )
    return Source("help desk")


def _parallel(data: PairData, source_suffix: str, target_suffix: str) -> Source:
    """Files `<stem>.<suffix>` of the same stems in two languages."""
    suffixes = [f".{suffix.removeprefix('.')}" for suffix in (source_suffix, target_suffix)]
    found = _files(data, suffixes=suffixes)
    sides = [{file.stem: file for file in found if file.suffix == suffix} for suffix in suffixes]
    if lonely := sorted(sides[0].keys() ^ sides[1].keys()):
        raise DataError(
            f"data.source: parallel files must come in pairs, got {lonely[0]!r} with only one of the suffixes "
            f"{' and '.join(suffixes)} in {data.source!r}. Add the other one."
        )
    if not sides[0]:
        raise DataError(
            f"data.source: no pair of files with the suffixes {' and '.join(suffixes)} in {data.source!r}. "
            "Name the folder, or leave data.source_suffix and data.target_suffix out for a table with columns."
        )
    groups = _by_split([sides[0][stem] for stem in sorted(sides[0])], data)
    pairs = {
        name: tuple(path for file in files for path in (file, sides[1][file.stem])) for name, files in groups.items()
    }
    return Source("parallel", pairs)


def _files(data: Data, *, suffixes: Sequence[str] | None) -> list[Path]:
    """The files that `data.source` names; of a folder those with one of `suffixes`."""
    path = Path(data.source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        wanted = [file for file in found if suffixes is None or file.suffix.lower() in suffixes]
        if not wanted:
            raise DataError(
                f"data.source: no file with a suffix of {', '.join(suffixes or ())} in the folder {path}. "
                f"Name another folder, or set data.format{_suffixes_hint(data)}."
            )
        return wanted
    if glob.has_magic(str(path)):
        matching = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207  # Path.glob refuses absolute patterns
        if matches := sorted(file for file in matching if file.is_file()):
            return matches
        raise DataError(f"data.source: no file matches {data.source!r} in {Path.cwd()}. Check the pattern.")
    parent = path.parent
    hint = (
        nearest(path.name, (entry.name for entry in parent.iterdir()))
        if parent.is_dir()
        else f" There is no folder {parent} either."
    )
    raise DataError(
        f"data.source: no file or folder {data.source!r} in {Path.cwd()}.{hint} A data set of the Hugging "
        f"Face hub is written hub:{data.source}; the built-in text is 'sample'."
    )


def _suffixes_hint(data: Data) -> str:
    return ", or data.source_suffix and data.target_suffix for parallel files" if isinstance(data, PairData) else ""


def _by_split(files: Sequence[Path], data: Data) -> dict[str, tuple[Path, ...]]:
    """Files by split: by their stems where one of these is the training split's name, else all are
    `train`."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[re.sub(r"[-_.]\d+([-_.]of[-_.]\d+)?$", "", file.stem)].append(file)  # train-00000-of-00002
    if "train" not in groups and data.train_split is None:
        if held := sorted(HELD_OUT & groups.keys()):
            raise DataError(
                f"data.train_split: {data.source!r} has files of a split {held[0]!r} but none named 'train'; it has "
                f"{', '.join(map(repr, sorted(groups)))}. Name the one to train on, or rename the file."
            )
        return {"train": tuple(files)}
    return {name: tuple(group) for name, group in groups.items()}


def streams(data: TextData, source: Source) -> dict[str, Stream]:
    """The texts of each split that the source itself has, by the split's name.

    Raises DataError for a column, data set or configuration that is not there; the streams raise it for rows
    without text and for bytes that are not UTF-8.
    """
    if source.format == "sample":
        return {"train": sample}
    if source.format == "help desk":
        return {"train": help_desk}
    if source.format == "txt":
        return {name: lambda files=files: _plain(files) for name, files in source.files.items()}  # type: ignore[misc]
    columns = {"data.text_column": data.text_column}
    return {name: _texts(table, data.text_column) for name, table in rows(data, source, columns).items()}


def rows(data: Data, source: Source, columns: Mapping[str, str]) -> dict[str, Rows]:
    """The rows of each split that the source itself has, by the split's name.

    columns: by the setting that names it, each column the rows must have. Raises DataError for a column, data
    set or configuration that is not there; the rows raise it for bytes that are not UTF-8.
    """
    match source.format:
        case "hub":
            return _hub(data, columns)
        case "parallel":
            return {name: _aligned(files, list(columns.values())) for name, files in source.files.items()}
        case "txt":
            return {name: _lines(files, columns) for name, files in source.files.items()}
        case _:
            return {name: _table(source.format, files, columns) for name, files in source.files.items()}


def sample() -> Iterator[str]:
    """The built-in text: the paragraphs of Python's own language reference (`pydoc_data.topics`, PSF
    licence), each once, a blank line after each. A fifth of the paragraphs there are repeats; a repeat in
    another split would leak.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            text = paragraph.strip("\n")
            if text.strip() and text.strip() not in seen:
                seen.add(text.strip())
                yield text + "\n\n"


def help_desk() -> Iterator[str]:
    """The other built-in text: documents about the invented help desk of `models.samples`."""
    return (row["text"] for row in samples.dialogue_text())


def _plain(files: Sequence[Path]) -> Iterator[str]:
    """The text of each file; a blank line is put between files."""
    for index, file in enumerate(files):
        text = _read(file)
        if index + 1 < len(files):
            text = text.rstrip("\n") + "\n\n"
        yield text


def _encoding_error(file: Path, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{file}: must be UTF-8, got the byte 0x{byte:02x} at offset {error.start}. "
        f"Convert the file, for example: iconv -f latin1 -t utf-8 {file.name}"
    )


def _lines(files: Sequence[Path], columns: Mapping[str, str]) -> Rows:
    """Plain text as a table of one column: a row a line."""
    if len(columns) > 1:
        raise DataError(
            f"{files[0]}: plain text has no columns, must have {', '.join(map(repr, columns.values()))}. "
            "Give JSON lines, CSV or parquet, or set data.format."
        )
    (column,) = columns.values()

    def lines() -> Iterator[tuple[str, Row]]:
        for file in files:
            for number, line in enumerate(_read(file).splitlines(), start=1):
                yield f"{file}:{number}", {column: line}

    return lines


def _aligned(files: Sequence[Path], columns: Sequence[str]) -> Rows:
    """Two files, or several pairs of them, as a table of two columns: a row a line."""
    sides = [[_lines_of(file) for file in files[start::2]] for start in (0, 1)]
    for one, other, source, target in zip(*sides, files[::2], files[1::2], strict=True):
        if len(one) != len(other):
            raise DataError(
                f"{source}: must have as many lines as {target}, got {len(one):,} and {len(other):,}. "
                "Parallel files are aligned line by line."
            )

    def pairs() -> Iterator[tuple[str, Row]]:
        for one, other, source in zip(*sides, files[::2], strict=True):
            for number, texts in enumerate(zip(one, other, strict=True), start=1):
                yield f"{source}:{number}", dict(zip(columns, texts, strict=True))

    return pairs


def _lines_of(file: Path) -> list[str]:
    """The lines of a file, with or without Windows' line ends; a form feed or the like ends none."""
    return _read(file).replace("\r\n", "\n").removesuffix("\n").split("\n")


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _encoding_error(file, error) from error


def _table(kind: str, files: Sequence[Path], columns: Mapping[str, str]) -> Rows:
    import datasets

    datasets.logging.set_verbosity(CRITICAL)  # what it cannot read is said once, by us
    wanted = " and ".join(map(repr, columns.values()))
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: is empty, must hold {kind} rows with a column {wanted}.")
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"

    def read() -> Iterator[Row]:
        if kind == "csv":
            yield from _csv(files)
            return
        builder = {"jsonl": "json"}.get(kind, kind)
        names = [str(file) for file in files]
        try:
            yield from datasets.load_dataset(builder, data_files=names, split="train", streaming=True)
        except UnicodeDecodeError as error:
            raise _first_bad_byte(files, error) from error
        # pyarrow and pandas raise ValueErrors of their own; datasets wraps some of them.
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            if kind == "jsonl" and (broken := _first_broken_line(files)):
                raise broken from error
            raise DataError(
                f"{where}: cannot be read as {kind}: {_brief(error)} Check it, or set data.format."
            ) from error

    return _checked(read, columns, where)


def _csv(files: Sequence[Path]) -> Iterator[Row]:
    """The rows of CSV files with a header, every cell as the text that it is: `NA`, `null` and 007 too."""
    csv.field_size_limit(2**31 - 1)
    for file in files:
        try:
            with file.open(encoding="utf-8-sig", newline="") as content:
                yield from csv.DictReader(content, strict=True)
        except UnicodeDecodeError as error:
            raise _first_bad_byte(files, error) from error
        except csv.Error as error:
            raise DataError(f"{file}: cannot be read as csv: {error}. Check it, or set data.format.") from error


def _first_bad_byte(files: Sequence[Path], error: UnicodeDecodeError) -> DataError:
    """datasets reports an offset within its own block: look for the offset within the file."""
    for file in files:
        try:
            file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as found:
            return _encoding_error(file, found)
    return DataError(f"{files[0]}: cannot be decoded: {error}.")


def _first_broken_line(files: Sequence[Path]) -> DataError | None:
    """pyarrow counts rows from 0 and within its own block: look for the line within the file. None where every line is
    JSON of its own, or the file is one JSON document."""
    for file in files:
        for number, line in enumerate(_read(file).split("\n"), start=1):
            if line.strip():
                try:
                    json.loads(line)
                except ValueError as error:
                    if number == 1:  # a list over many lines, or no JSON at all: pyarrow says what it makes of it
                        return None
                    return DataError(
                        f"{file}:{number}: must be JSON, a row a line, got {line[:60]!r} ({error}). Mend the line."
                    )
    return None


def _hub(data: Data, columns: Mapping[str, str]) -> dict[str, Rows]:
    import datasets

    name = data.source.removeprefix(HUB)
    try:
        loaded = datasets.load_dataset(name, data.configuration, revision=data.revision, streaming=data.streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.source: cannot load {name!r} from the Hugging Face hub: {_brief(error)} "
            "Check the name, data.configuration and the connection."
        ) from error
    return {
        str(split): _checked(lambda table=table: iter(table), columns, f"{data.source} {split}")  # type: ignore[misc]
        for split, table in loaded.items()
    }


def _checked(read: Callable[[], Iterator[Row]], columns: Mapping[str, str], where: str) -> Rows:
    """Rows with their places, after a look at the first one."""
    looking = read()
    first = next(looking, None)
    if isinstance(looking, Generator):
        looking.close()  # and with it the file
    for setting, column in columns.items():
        if first is None:
            raise DataError(f"{where}: has no rows, must have at least one with a column {column!r}.")
        if column not in first:
            raise DataError(
                f"{where}: no column {column!r} ({setting}); it has {', '.join(map(repr, first))}."
                f"{nearest(column, first)} Set {setting}."
            )
    return lambda: ((f"{where}: row {number}", row) for number, row in enumerate(read(), start=1))


def _texts(table: Rows, column: str) -> Stream:
    """The texts of a column. Empty ones are passed over; anything else that is no text is an error."""
    return lambda: (text for where, row in table() if (text := text_of(row, column, where, "data.text_column")))


def text_of(row: Row, column: str, where: str, setting: str) -> str:
    """The text in a row's column, empty where it has none.

    Raises DataError for anything else, naming the `setting` that chose the column.
    """
    text = row.get(column)
    if text is not None and not isinstance(text, str):
        raise DataError(
            f"{where}: column {column!r} must hold text, got {type(text).__name__} "
            f"{text!r}. Set {setting} to a column of text."
        )
    return text or ""


def _brief(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")[:300] + "."
