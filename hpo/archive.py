"""An archive: files of a study in one zip that can be read without this program, and is checked before it is used.

Each member's length and SHA-256 stand in `archive.json`, the last member. Knows what may be in an archive and
how to read one from somebody else safely; nothing of what a study is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpo.errors import UserError
from hpo.folder import StudyFolder, StudyRecord
from hpo.journal import History, lines
from hpo.trials import Direction

SUFFIX = ".hpo.zip"
FORMAT = 1
REQUIRED = ("study.json", "sweep.yaml", "journal.jsonl")
_HEAD = "archive.json"
_HEAD_BYTES = 64 * 2**20
_TEXTS = (*REQUIRED, "warm.jsonl", "trials.csv", "curves.csv", "report.md")
_NAME = re.compile(r"promotions/\d{4,}/promotion\.json|(promotions/\d{4,}/model|trials/\d{4,})(/[^/\\\0]+)+")
_CHUNK = 2**20
# A journal packs about 20 to 1. Only what is made to fill a disk packs hundreds to one.
_DENSEST = 500
_DENSE_BYTES = 64 * 2**20

Chunks = Iterable[bytes]


def file_chunks(path: Path, size: int | None = None) -> Iterator[bytes]:
    """A file, or its first `size` bytes, piece by piece."""
    left = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


def pack(path: Path, head: Mapping[str, Any], members: Iterable[tuple[str, Chunks]]) -> int:
    """Write an archive, whole or not at all: temporary name, fsync, rename.

    Args:
        path: where; what is there is replaced.
        head: what `archive.json` says beside the list of members.
        members: name and content of each, read one after another.

    Returns:
        Its size in bytes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as packed:
                listed = {name: _add(packed, name, chunks) for name, chunks in members}
                text = json.dumps({"format": FORMAT, **head, "members": listed}, indent=1) + "\n"
                _add(packed, _HEAD, [text.encode()])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.stat().st_size


def _add(packed: zipfile.ZipFile, name: str, chunks: Chunks) -> dict[str, Any]:
    info = zipfile.ZipInfo(name, time.localtime()[:6])
    # Weights are noise to a compressor: minutes of work for a few percent.
    info.compress_type = zipfile.ZIP_STORED if name.startswith("trials/") or "/model/" in name else zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    digest, count = hashlib.sha256(), 0
    with packed.open(info, "w", force_zip64=True) as member:
        for chunk in chunks:
            digest.update(chunk)
            count += len(chunk)
            member.write(chunk)
    return {"bytes": count, "sha256": digest.hexdigest()}


@dataclass(frozen=True)
class Archive:
    """An opened archive whose list of members was found to be in order.

    Attributes:
        head: what `archive.json` says.
        sizes: bytes of each member.
    """

    path: Path
    head: Mapping[str, Any]
    sizes: Mapping[str, int]
    _packed: zipfile.ZipFile

    def extract(self, root: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Write members below a folder, each compared with its length and digest.

        Raises:
            UserError: a member is damaged, or is not what the list says.
        """
        for name in self.sizes:
            target = root / name if wanted(name) else None
            if target is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                file = None if target is None else stack.enter_context(target.open("xb"))
                self._read(name, file)

    def _read(self, name: str, file: IO[bytes] | None) -> None:
        declared = self.head["members"][name]
        digest, count = hashlib.sha256(), 0
        with _sound(self.path, name), self._packed.open(name) as member:
            while chunk := member.read(_CHUNK):
                count += len(chunk)
                if count > declared["bytes"]:
                    break
                digest.update(chunk)
                if file is not None:
                    file.write(chunk)
        if count != declared["bytes"] or digest.hexdigest() != declared["sha256"]:
            raise UserError(f"{self.path}: {name} is not what was packed: the archive is damaged. Get it again.")
        if file is not None:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def _sound(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: {name} cannot be unpacked: {error}. Get the archive again.") from None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An archive from anywhere. Nothing of it is written before its whole list of members was checked.

    Raises:
        UserError: it is no archive of a study, of another version, or has members that none has.
    """
    if not path.is_file():
        raise UserError(f"no archive {path}. Make one where the study is: hpo export NAME.")
    with contextlib.ExitStack() as stack:
        try:
            packed = stack.enter_context(zipfile.ZipFile(path))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise UserError(f"{path} is no archive of a study: {error}. Make one: hpo export NAME.") from None
        infos = packed.infolist()
        head = _head(path, packed)
        for info in infos:
            _check(path, info, head["members"])
        names = [info.filename for info in infos if info.filename != _HEAD]
        parents = {parent for name in names for parent in _parents(name)}
        twice = [name for name, count in Counter(names).items() if count > 1 or name in parents]
        if twice:
            raise UserError(f"{path}: {twice[0]} is there twice. It was not made by hpo export.")
        if missing := [name for name in (*REQUIRED, *head["members"]) if name not in set(names)]:
            raise UserError(f"{path} lacks {missing[0]}; the archive is not whole. Get it again.")
        yield Archive(path, head, {info.filename: info.file_size for info in infos if info.filename != _HEAD}, packed)


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _head(path: Path, packed: zipfile.ZipFile) -> dict[str, Any]:
    try:
        with _sound(path, _HEAD), packed.open(_HEAD) as member:
            head = json.loads(member.read(_HEAD_BYTES))
    except (KeyError, ValueError):
        raise UserError(f"{path} is no archive of a study: it has no {_HEAD}. Make one: hpo export NAME.") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        written = head.get("format") if isinstance(head, dict) else None
        raise UserError(f"{path}: written in format {written!r}, this version reads {FORMAT}.")
    members = head.get("members")
    sound = isinstance(members, dict) and all(
        isinstance(member, dict) and type(member.get("bytes")) is int and isinstance(member.get("sha256"), str)
        for member in members.values()
    )
    if not sound:
        raise UserError(f"{path}: the list of members in {_HEAD} is damaged. Get the archive again.")
    return head


def _check(path: Path, info: zipfile.ZipInfo, declared: Mapping[str, Any]) -> None:
    """Refuse a member that could write elsewhere, is no plain file, or is larger than the list says."""
    name = info.filename
    if name == _HEAD:
        return
    allowed = name in _TEXTS or _NAME.fullmatch(name) is not None
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not allowed or any(part in (".", "..") for part in name.split("/")) or kind not in (0, stat.S_IFREG):
        raise UserError(f"{path}: {name!r} does not belong in an archive of a study. It was not made by hpo export.")
    if info.flag_bits & 1:
        raise UserError(f"{path}: {name} is encrypted. Archives of studies are not.")
    if name not in declared or info.file_size != declared[name]["bytes"]:
        raise UserError(f"{path}: {name} is not what was packed: the archive was changed. Get it again.")
    if info.file_size > _DENSE_BYTES and info.file_size > _DENSEST * max(info.compress_size, 1):
        raise UserError(f"{path}: {name} would grow {info.file_size // max(info.compress_size, 1)} times. Refused.")


# -- what an unpacked study must be -----------------------------------------------------------------------


def read_record(folder: StudyFolder, path: Path) -> StudyRecord:
    """The record of an unpacked study, which somebody else may have written; `path` is its archive's.

    Raises:
        UserError: it is damaged, or of another version.
    """
    try:
        record = StudyRecord.read(folder)
        Direction(record.metric["direction"])
        _ = [(one["name"], Direction(one["direction"])) for one in record.tradeoff]
        sound = isinstance(record.search["trials"], int) and all(
            isinstance(value, kind)
            for value, kind in (
                (record.fixed, dict),
                (record.space, dict),
                (record.origin, str),
                (record.objective, str),
            )
        )
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: study.json is not that of a study: {error}. Get the archive again.") from None
    if not sound:
        raise UserError(f"{path}: study.json is not that of a study. Get the archive again.")
    return record


def read_history(folder: StudyFolder, path: Path) -> History:
    """What a journal says, each line of it found to be in order.

    Raises:
        UserError: a line is damaged; the message has its number.
    """
    history, count = History(), 0
    try:
        for history.offset, line in lines(folder.journal):
            count += 1
            history.add(line)
    except UserError:
        raise UserError(f"{path}: line {count + 1} of its journal is damaged. Get the archive again.") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"line {count} of its journal cannot be read: {type(error).__name__} {error}"
        raise UserError(f"{path}: {what}. Get the archive again.") from None
    if history.offset != folder.journal.stat().st_size:
        raise UserError(f"{path}: line {count + 1} of its journal is not whole. Get the archive again.")
    return history
