"""What can be made again, kept on disk under a digest of what it was made from.

A folder is built under a file lock, under a temporary name, and renamed when it is whole: processes that ask
for the same at once wait for the first, then share. Knows nothing of what the folders hold, but for one file
of facts.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.configuration import Tokenizer

TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.spm",
)
"""What a tokenizer is made of in a Hugging Face folder."""

Facts = dict[str, str | int | float]


def root() -> Path:
    """`$HPO_CACHE`, else `~/.cache/hpo`."""
    return Path(os.environ.get("HPO_CACHE") or "~/.cache/hpo").expanduser()


def digest(made_from: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for what something is made from, anything JSON can say."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def of_tokenizer(tokenizer: Tokenizer, pretrained: str | None) -> list[Any]:
    """What tells a tokenizer from another, as JSON."""
    trained = tokenizer.kind in ("bpe", "words")
    own: Any = pretrained
    if pretrained and (folder := Path(pretrained).expanduser()).is_dir():
        # Its special tokens and its chat template stand in files of their own, and so may its vocabulary.
        files = sorted(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern))
        own = [[file.name, content_hash(file)] for file in files]
    # The number: how a pretrained tokenizer is used, raised when that changes.
    return [tokenizer.kind, tokenizer.vocabulary if trained else None, own, *([2] if pretrained else [])]


def folder(name: str, build: Callable[[Path], Facts]) -> tuple[Path, Facts]:
    """Find the folder of data called `name`, or have it built; the folder and its facts.

    build: fills the empty folder it is given and returns the facts. What it raises is passed on, and nothing
    stays behind.
    """
    place = root() / "data" / name
    if not (place / "facts.json").exists():
        import filelock

        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(place.parent / f"{name}.lock"):
            if not (place / "facts.json").exists():
                _fill(place, build)
    facts: Facts = json.loads((place / "facts.json").read_text())
    return place, facts


def _fill(place: Path, build: Callable[[Path], Facts]) -> None:
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        facts = build(temporary)
        with (temporary / "facts.json").open("w") as output:
            json.dump(facts, output, indent=2, ensure_ascii=False)
            output.flush()
            os.fsync(output.fileno())
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def content_hash(file: Path) -> str:
    """SHA-256 of a file, remembered under its path, size and time of change: a large file is read once."""
    status = file.stat()
    key = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    memo = root() / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        return memo.read_text()
    except FileNotFoundError:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    memo.parent.mkdir(parents=True, exist_ok=True)
    temporary = memo.with_suffix(f".{os.getpid()}")
    temporary.write_text(found)
    temporary.rename(memo)
    return found
