"""A YAML 1.2 document as plain values that know their lines, and the mistakes found while reading it.

Knows nothing of sweeps: `hpo.sweep` says what belongs in one. No Python object is ever constructed from YAML.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.errors import Mistake, SweepError, UserError, did_you_mean
from hpo.trials import Value

Path_ = tuple[str | int, ...]
"""Where something stands in a document: keys and indices from the top. Keys may have dots in them."""


def load_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Path_, str]]:
    """Plain values of a YAML 1.2 document and where each stands (`name:line`).

    Raises:
        SweepError: the text is no YAML mapping; the mistake has its line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    places: dict[Path_, str] = {}

    def plain(node: Any, path: Path_, line: int) -> Any:
        places[path] = f"{name}:{line}"
        if isinstance(node, TaggedScalar) or getattr(getattr(node, "tag", None), "value", None):
            raise SweepError([Mistake(places[path], f"YAML tag {node.tag.value}: tags are not allowed here.")])
        if isinstance(node, CommentedMap):
            return {
                _scalar(key): plain(value, (*path, _scalar(key)), node.lc.key(key)[0] + 1)
                for key, value in node.items()
            }
        if isinstance(node, CommentedSeq):
            return [plain(value, (*path, index), node.lc.item(index)[0] + 1) for index, value in enumerate(node)]
        value = _scalar(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise SweepError([Mistake(places[path], f"requires a finite number, got {value}.")])
        if value is not None and not isinstance(value, bool | int | float | str):
            raise SweepError([Mistake(places[path], f"{value} is read as a {type(value).__name__}. Quote it.")])
        return value

    reader = YAML(typ="rt")
    reader.allow_duplicate_keys = False
    try:
        tree = reader.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not valid YAML").strip().split("\n")[0]
        raise SweepError([Mistake(f"{name}:{mark.line + 1 if mark else 1}", f"not valid YAML: {problem}.")]) from None
    except YAMLError as error:
        raise SweepError([Mistake(f"{name}:1", f"not valid YAML: {error}.")]) from None
    if not isinstance(tree, CommentedMap):
        got = "an empty file" if tree is None else f"a {type(tree).__name__}"
        raise SweepError([Mistake(f"{name}:1", f"expected names with values, as in `metric: {...}`; got {got}.")])
    return plain(tree, (), 1), places


def _scalar(node: Any) -> Any:
    """ruamel keeps formatting in subclasses of int, float and str; give back the plain value."""
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def override(
    tree: dict[str, Any], places: dict[Path_, str], assignments: Sequence[str], sections: Sequence[str]
) -> None:
    """Apply `--set key=value`: a path into the sweep ("search.trials"), else a fixed setting ("tokens").

    Raises:
        UserError: an assignment has no `=`, or its value is no YAML.
    """
    for text in assignments:
        key, equals, written = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text}: expected key=value, for example --set tokens=100000.")
        value, _ = load_yaml(f"value: {written}", f"--set {key}")
        head, _, rest = key.partition(".")
        # Names of settings have dots themselves, so one section and the whole rest are the two steps.
        path: tuple[str, ...] = ("fixed", key)
        if head in sections:
            path = (head, rest) if rest else (head,)
            if head in ("search", "launch", "metric", "track") and rest:
                path = (head, *rest.split("."))
        branch: Any = tree
        for step in path[:-1]:
            if isinstance(names := branch.get(step), list) and all(isinstance(name, str) for name in names):
                branch[step] = dict.fromkeys(names)  # track: [mlflow]
            elif not isinstance(names, dict):
                branch[step] = {}
            branch = branch[step]
        if path[0] == "fixed":
            _drop(tree.get("fixed"), key)
        branch[path[-1]] = value["value"]
        places[path] = f"--set {key}"


def _drop(tree: Any, name: str) -> None:
    """Remove a dotted setting however it was nested, so that an override replaces it."""
    if not isinstance(tree, dict):
        return
    for key in list(tree):
        if key == name:
            del tree[key]
        elif name.startswith(f"{key}."):
            _drop(tree[key], name[len(key) + 1 :])


class Document:
    """A loaded document: small shapes read from it, and a list of what is wrong.

    Args:
        tree: plain values.
        places: where each stands, `file:line`.
        name: what messages call the document where nothing more is known.
    """

    def __init__(self, tree: dict[str, Any], places: dict[Path_, str], name: str) -> None:
        self.tree = tree
        self.places = places
        self.name = name
        self.mistakes: list[Mistake] = []

    def wrong(self, path: Path_, rule: str) -> None:
        place = next((self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places), self.name)
        dotted = ".".join(str(part) for part in path)
        self.mistakes.append(Mistake(place, f"{dotted}: {rule}" if dotted else rule))

    def mapping(self, path: Path_, node: Any) -> dict[str, Any]:
        if node is None:
            return {}
        if not isinstance(node, dict):
            self.wrong(path, f"requires a mapping of names to values, got {node!r}.")
            return {}
        for key in [key for key in node if not isinstance(key, str)]:
            self.wrong((*path, key), f"requires a name, got {key!r}. Quote it if it is one.")
        return {key: value for key, value in node.items() if isinstance(key, str)}

    def scalars(self, path: Path_, node: Any) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, value in self.mapping(path, node).items():
            if isinstance(value, dict):
                # baseline: {model: {dropout: 0.1}} is model.dropout, as everywhere else.
                values |= {f"{key}.{inner}": item for inner, item in self.scalars((*path, key), value).items()}
            elif isinstance(value, list):
                self.wrong((*path, key), f"requires one value, got the list {value!r}.")
            else:
                values[key] = value
        return values

    def known(self, path: Path_, node: Any, keys: Sequence[str]) -> dict[str, Any]:
        values = self.mapping(path, node)
        for key in [key for key in values if key not in keys]:
            self.wrong((*path, key), f"no such key.{did_you_mean(key, keys)}")
            del values[key]
        return values

    def whole(
        self,
        path: Path_,
        values: Mapping[str, Any],
        key: str,
        default: Any,
        low: int,
        words: tuple[str, ...] = (),
    ) -> Any:
        """A whole number at least `low`, or one of `words`."""
        value = values.get(key, default)
        if value in words and isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            allowed = " or ".join((f"a whole number from {low}", *words))
            self.wrong((*path, key), f"requires {allowed}, got {value!r}.")
            return default
        return value

    def word(self, path: Path_, values: Mapping[str, Any], key: str, words: tuple[str, ...]) -> Any:
        """One of `words`; the first is the default."""
        value = values.get(key)
        if value is not None and value not in words:
            self.wrong((*path, key), f"requires {' or '.join(words)}, got {value!r}.")
            return words[0]
        return words[0] if value is None else value

    def number(
        self, path: Path_, values: Mapping[str, Any], key: str, low: float = 0.0, other: str = ""
    ) -> float | None:
        """A number above `low`, or None where there is none; `other` is a word that the caller takes instead."""
        value = values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < math.inf:
            self.wrong(
                (*path, key), f"requires a number above {low:g}{f' or {other}' if other else ''}, got {value!r}."
            )
            return None
        return float(value)

    def seconds(self, path: Path_, node: Any, *, zero: bool = False) -> float | None:
        """A time such as 90s, 30m, 2h or 1d in seconds; a bare number is seconds."""
        if node is None:
            return None
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)?\s*", str(node))
        if isinstance(node, bool) or match is None or (float(match[1]) <= 0 and not zero):
            self.wrong(path, f"requires a time such as 90s, 30m, 2h or 1d, got {node!r}.")
            return None
        return float(match[1]) * {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
