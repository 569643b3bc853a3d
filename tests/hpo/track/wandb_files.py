"""What W&B's library wrote on disk, read back: LevelDB's log format behind a header of 7 bytes, protobuf in it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.folder import StudyFolder

_BLOCK = 32768
_FULL, _LAST = 1, 4


@dataclass
class Seen:
    """One run as it will stand at W&B."""

    id: str
    folder: Path
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    notes: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def table(self) -> dict[str, Any]:
        (path,) = (self.folder / "files" / "media" / "table").glob("*.table.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def runs(folder: StudyFolder) -> dict[str, Seen]:
    """Every run in a study's folder, by name. Two folders for one run would be one too many."""
    found: dict[str, Seen] = {}
    for path in sorted((folder.tracking / "wandb").glob("*run-*/*.wandb")):
        if path.parent.is_symlink():
            continue
        seen = run(path)
        assert seen.name not in found, f"{seen.name} is there twice"
        found[seen.name] = seen
    return found


def run(path: Path) -> Seen:
    from wandb.proto import wandb_internal_pb2

    seen = Seen("", path.parent)
    for raw in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(raw)
        match record.WhichOneof("record_type"):
            case "run":
                told = record.run
                seen.id, seen.name, seen.group = told.run_id, told.display_name, told.run_group
                seen.job_type, seen.project, seen.notes = told.job_type, told.project, told.notes
                seen.tags = list(told.tags)
                seen.config |= {item.key: json.loads(item.value_json) for item in told.config.update}
            case "history":
                row = _items(record.history.item)
                assert record.history.step.num == len(seen.rows) == row["_step"]
                seen.rows.append(row)
            case "summary":
                for item in record.summary.update:
                    _put(seen.summary, item)
            case "exit":
                seen.exit_code = record.exit.exit_code
    seen.config.pop("_wandb", None)
    return seen


def _items(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        _put(found, item)
    return found


def _put(into: dict[str, Any], item: Any) -> None:
    *path, leaf = list(item.nested_key) or [item.key]
    for part in path:
        into = into.setdefault(part, {})
    into[leaf] = json.loads(item.value_json)


def _records(data: bytes) -> Iterator[bytes]:
    position, record = 7, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        position += 7
        record += data[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            yield record
            record = b""
