"""Documentation strings of the Python standard library by subject: short texts to classify.

Real English by the authors of Python (PSF licence), read as text and never imported. Not a benchmark:
the texts change a little from one Python version to the next, so compare results of one version only. Knows
nothing of splits.
"""

import ast
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from models.errors import DataError

SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "concurrency": ("asyncio", "concurrent", "multiprocessing", "queue", "sched", "subprocess", "threading"),
    "files": ("_pyio", "bz2", "gzip", "lzma", "os", "pathlib", "shutil", "tarfile", "tempfile", "zipfile"),
    "imports": ("importlib", "modulefinder", "pkgutil", "runpy", "zipimport"),
    "logging": ("logging", "traceback", "warnings"),
    "mail": ("email", "imaplib", "mailbox", "poplib", "smtplib"),
    "markup": ("configparser", "csv", "html", "json", "plistlib", "xml"),
    "numbers": ("_pydatetime", "_pydecimal", "calendar", "datetime", "fractions", "numbers", "random", "statistics"),
    "testing": ("bdb", "cProfile", "doctest", "pdb", "profile", "pstats", "timeit", "trace", "unittest"),
    "web": ("ftplib", "http", "ipaddress", "socket", "socketserver", "ssl", "urllib", "wsgiref", "xmlrpc"),
}
"""The modules and packages of each label. All are in every Python from 3.11 on, also where a distribution splits
the library into packages; `_pydatetime` came with 3.12 and holds what `datetime` held before."""

WORDS = 40
"""A text is the first paragraph of its documentation string, and at most this many words of it."""
FEWEST_WORDS = 6
"""Shorter ones say too little."""


def docstrings() -> Iterator[dict[str, str]]:
    """Rows of `text` and `label`: what a function or class of the standard library does, and the subject of its
    module, one of `SUBJECTS`.

    Texts are distinct; one that several subjects have is left out. By label, then in the order of the files.
    Raises DataError where Python came without its source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for label, modules in SUBJECTS.items():
        for module in modules:
            for file in _files(root, module):
                for text in _texts(file):
                    found[text][label] = None
    rows = [{"text": text, "label": next(iter(labels))} for text, labels in found.items() if len(labels) == 1]
    if not rows:
        raise DataError(
            f"data.source: the built-in texts to classify are read from the source files of Python's standard "
            f"library, got none in {root}. Name a file or a data set of your own."
        )
    yield from rows


def _files(root: Path, module: str) -> list[Path]:
    """The source files of a module or package, without its tests; none where this Python lacks it."""
    package = root / module
    if not package.is_dir():
        return [file] if (file := root / f"{module}.py").is_file() else []
    files = (file for file in package.rglob("*.py") if not {"test", "tests"} & set(file.relative_to(package).parts))
    return sorted(files, key=lambda file: file.relative_to(package).as_posix())


def _texts(file: Path) -> Iterator[str]:
    """The documentation strings of a file's functions and classes, each on one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's strings are not ours to report
        tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = (ast.get_docstring(node) or "").split("\n\n")[0].split()[:WORDS]
            if len(words) >= FEWEST_WORDS:
                yield " ".join(words)
