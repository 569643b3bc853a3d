"""What a settings type allows: its dotted names, its nearest name, and every mistake in a set of values.

Works on frozen dataclasses and pydantic models alike; both an objective's configuration and the sections
of a sweep file are read through here, so that all errors sound the same. Knows nothing of files or lines:
a mistake names the setting, the caller knows where it stands.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import did_you_mean

_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of a settings type."""

    name: str
    type: Any
    default: object = _REQUIRED

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are allowed (so that a range of it is a range of integers)."""
        return _bare(self.type) == {int}


class Schema:
    """The names and rules of one settings type. `dict` (or any mapping) allows everything."""

    def __init__(self, settings_type: Any) -> None:
        self.type = settings_type
        self.open = _bare_origin(settings_type) in (dict, Mapping) or settings_type is Any
        self.settings = {} if self.open else {s.name: s for s in _leaves(settings_type, "")}
        self.groups = {name.rsplit(".", depth)[0] for name in self.settings for depth in range(1, name.count(".") + 1)}

    def ready(self) -> None:
        """Build what `build` needs now, once, rather than at the first call in each forked trial (0.06 s)."""
        if not self.open:
            _adapter(self.type)

    def unknown(self, name: str) -> str | None:
        """What to say of a name this type does not have, or None where it has it."""
        if self.open or name in self.settings:
            return None
        parent = name.rsplit(".", 1)[0] if "." in name else ""
        siblings = [known for known in self.settings if known.startswith(f"{parent}.")] if parent in self.groups else []
        hint = did_you_mean(name, self.settings)
        if "Did you mean" not in hint and siblings:
            hint = did_you_mean(name, siblings) or hint
        return hint.strip() or "See the objective's configuration type."

    def build(self, flat: Mapping[str, object]) -> Any:
        """The settings object of values by dotted name.

        Raises:
            Invalid: with one (name, message) for every value that is not allowed.
        """
        if self.open:
            return dict(flat)
        import pydantic

        try:
            # JSON's strict mode is what a YAML file means: 3 is a float too, "3" is not, a list is a tuple.
            return _adapter(self.type).validate_json(json.dumps(nest(flat)), strict=True)
        except pydantic.ValidationError as error:
            raise Invalid([_sentence(dict(flat), item) for item in error.errors()]) from None


class Invalid(Exception):
    """Values that a settings type does not allow: (dotted name, message) each; the name may be a group's."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in problems))


def flatten(
    tree: Mapping[str, object], schema: Schema, prefix: str = ""
) -> Iterator[tuple[tuple[str, ...], str, object]]:
    """(path of keys, dotted name, value) for each leaf; nested and dotted keys may be mixed.

    A mapping is descended into where the type has settings under its name, or where the type is open.
    """
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        descend = isinstance(value, Mapping) and name not in schema.settings
        if descend and isinstance(value, Mapping):
            for path, leaf, inner in flatten(value, schema, name):
                yield (str(key), *path), leaf, inner
        else:
            yield (str(key),), name, value


def nest(flat: Mapping[str, object]) -> dict[str, Any]:
    """{"model.width": 64} as {"model": {"width": 64}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree


@functools.lru_cache(maxsize=32)
def _adapter(settings_type: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(settings_type)


def _bare_origin(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _bare(annotation: Any) -> set[Any]:
    """The plain types of an annotation, without Annotated, None and Literal's wrapping."""
    if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return _bare(annotation.__value__)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_bare(part) for part in typing.get_args(annotation))) - {type(None)}
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    return {origin or annotation}


def _fields(settings_type: Any) -> Iterator[tuple[str, Any, object]]:
    """(name, annotation, default or _REQUIRED) of a dataclass or a pydantic model."""
    if dataclasses.is_dataclass(settings_type):
        hints = typing.get_type_hints(settings_type, include_extras=True)
        for item in dataclasses.fields(settings_type):
            default: object = _REQUIRED
            if item.default is not dataclasses.MISSING:
                default = item.default
            elif item.default_factory is not dataclasses.MISSING:
                default = item.default_factory()
            yield item.name, hints[item.name], default
    else:
        for name, info in settings_type.model_fields.items():
            default = _REQUIRED if info.is_required() else info.get_default(call_default_factory=True)
            yield name, info.annotation, default


def _is_group(annotation: Any) -> Any | None:
    """The nested settings type inside an annotation, if it is one."""
    for bare in _bare(annotation):
        if isinstance(bare, type) and (dataclasses.is_dataclass(bare) or hasattr(bare, "model_fields")):
            return bare
    return None


def _leaves(settings_type: Any, prefix: str) -> Iterator[Setting]:
    for name, annotation, default in _fields(settings_type):
        dotted = f"{prefix}{name}"
        group = _is_group(annotation)
        if group is None:
            yield Setting(dotted, annotation, default)
            continue
        for inner in _leaves(group, f"{dotted}."):
            # The parent's default may set the group's values otherwise than the group does itself.
            parts = inner.name[len(dotted) + 1 :].split(".")
            value = default
            for part in parts:
                value = getattr(value, part, inner.default)
            yield dataclasses.replace(inner, default=inner.default if default is _REQUIRED else value)


def _sentence(flat: Mapping[str, object], error: Mapping[str, Any]) -> tuple[str, str]:
    """One pydantic error as (dotted name, sentence for people)."""
    # Locations of unions and tuples end with a branch or an index; the setting is the longest known part.
    parts = [str(part) for part in error["loc"]]
    name = ".".join(parts)
    while parts and name not in flat and not any(known.startswith(f"{name}.") for known in flat):
        parts.pop()
        name = ".".join(parts)
    if error["type"] == "missing":
        return ".".join(
            str(part) for part in error["loc"]
        ), "is required and has no default. Add it to `fixed` or `space`."
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] in ("value_error", "assertion_error"):
        return name, message
    got = flat.get(name, error.get("input"))
    return name, f"{message}, got {got!r}."
