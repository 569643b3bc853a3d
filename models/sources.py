"""Finding and reading raw text: the built-in sample, local files, data sets of the Hugging Face hub.

`locate` says what a source is made of without reading it; `streams` gives its texts. Plain text is read
directly; JSON lines, CSV, parquet and the hub through `datasets`, as streams where the files are local. Knows
nothing of shares, hashes or tokens: it offers the splits that the source itself has.
"""

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.configuration import TextData
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

Stream = Callable[[], Iterator[str]]
"""Starts a fresh pass over texts."""


@dataclass(frozen=True)
class Source:
    """What a source is made of.

    format: sample, hub, txt, jsonl, csv or parquet. files: of a local source, by the split they belong to.
    """

    format: str
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether its texts are parts of running text; otherwise each is a document of its own."""
        return self.format in ("sample", "txt")


def locate(data: TextData) -> Source:
    """What `data.source` names. Reads no file; raises DataError where there is none, or several formats."""
    if data.source == "sample":
        return Source("sample")
    if data.source.startswith(HUB):
        if not data.source.removeprefix(HUB):
            raise DataError("data.source: a name must follow 'hub:', got none. For example hub:Salesforce/wikitext.")
        return Source("hub")
    files = _files(data)
    formats = {FORMATS.get(path.suffix.lower(), "") for path in files} if data.format == "auto" else {data.format}
    if len(formats) > 1 or "" in formats:
        raise DataError(
            f"data.format: the files of {data.source!r} must have one known suffix "
            f"({', '.join(FORMATS)}), got {', '.join(sorted({path.suffix or 'none' for path in files}))}. "
            "Name fewer files, or set data.format."
        )
    return Source(formats.pop(), _by_split(files, data))


def _files(data: TextData) -> list[Path]:
    path = Path(data.source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        wanted = [file for file in found if data.format != "auto" or file.suffix.lower() in FORMATS]
        if not wanted:
            raise DataError(f"data.source: no file with a suffix of {', '.join(FORMATS)} in the folder {path}.")
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


def _by_split(files: Sequence[Path], data: TextData) -> dict[str, tuple[Path, ...]]:
    """Files by split: by their stems where one of these is the training split's name, else all are
    `train`."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[re.sub(r"[-_.]\d+([-_.]of[-_.]\d+)?$", "", file.stem)].append(file)  # train-00000-of-00002
    if (data.train_split or "train") not in groups and data.train_split is None:
        return {"train": tuple(files)}
    return {name: tuple(group) for name, group in groups.items()}


def streams(data: TextData, source: Source) -> dict[str, Stream]:
    """The texts of each split that the source itself has, by the split's name.

    Raises DataError for a column, data set or configuration that is not there; the streams raise it for rows
    without text and for bytes that are not UTF-8.
    """
    match source.format:
        case "sample":
            return {"train": sample}
        case "txt":
            return {name: lambda files=files: _plain(files) for name, files in source.files.items()}  # type: ignore[misc]
        case "hub":
            return _hub(data)
        case _:
            return {name: _table(data, source.format, files) for name, files in source.files.items()}


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


def _plain(files: Sequence[Path]) -> Iterator[str]:
    """The text of each file; a blank line is put between files."""
    for index, file in enumerate(files):
        content = file.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _encoding_error(file, error) from error
        if index + 1 < len(files):
            text = text.rstrip("\n") + "\n\n"
        yield text


def _encoding_error(file: Path, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{file}: must be UTF-8, got the byte 0x{byte:02x} at offset {error.start}. "
        f"Convert the file, for example: iconv -f latin1 -t utf-8 {file.name}"
    )


def _table(data: TextData, kind: str, files: Sequence[Path]) -> Stream:
    import datasets

    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: is empty, must hold {kind} rows with a column {data.text_column!r}.")
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"

    def rows() -> Iterator[Mapping[str, Any]]:
        builder = {"jsonl": "json"}.get(kind, kind)
        try:
            yield from datasets.load_dataset(builder, data_files=[str(f) for f in files], split="train", streaming=True)
        except UnicodeDecodeError as error:
            raise _first_bad_byte(files, error) from error
        # pyarrow and pandas raise ValueErrors of their own; datasets wraps some of them.
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{where}: cannot be read as {kind}: {_brief(error)} Check it, or set data.format."
            ) from error

    return _checked(rows, data.text_column, where)


def _first_bad_byte(files: Sequence[Path], error: UnicodeDecodeError) -> DataError:
    """datasets reports an offset within its own block: look for the offset within the file."""
    for file in files:
        try:
            file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as found:
            return _encoding_error(file, found)
    return DataError(f"{files[0]}: cannot be decoded: {error}.")


def _hub(data: TextData) -> dict[str, Stream]:
    import datasets

    name = data.source.removeprefix(HUB)
    try:
        loaded = datasets.load_dataset(name, data.configuration, revision=data.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.source: cannot load {name!r} from the Hugging Face hub: {_brief(error)} "
            "Check the name, data.configuration and the connection."
        ) from error
    return {
        str(split): _checked(lambda rows=rows: iter(rows), data.text_column, f"{data.source} {split}")  # type: ignore[misc]
        for split, rows in loaded.items()
    }


def _checked(rows: Callable[[], Iterator[Mapping[str, Any]]], column: str, where: str) -> Stream:
    """The texts in `column`, after a look at the first row. Empty texts are passed over; anything else that
    is no text is an error."""
    looking = rows()
    first = next(looking, None)
    if isinstance(looking, Generator):
        looking.close()  # and with it the file
    if first is None:
        raise DataError(f"{where}: has no rows, must have at least one with a column {column!r}.")
    if column not in first:
        raise DataError(
            f"{where}: no column {column!r} (data.text_column); it has {', '.join(map(repr, first))}."
            f"{nearest(column, first)} Set data.text_column."
        )

    def texts() -> Iterator[str]:
        for number, row in enumerate(rows(), start=1):
            text = row[column]
            if text is not None and not isinstance(text, str):
                raise DataError(
                    f"{where}: row {number}: column {column!r} must hold text, got {type(text).__name__} "
                    f"{text!r}. Set data.text_column to a column of text."
                )
            if text:
                yield text

    return texts


def _brief(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")[:300] + "."
