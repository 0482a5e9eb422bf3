"""Reads settings from their sources into typed values, and says in one sentence what is wrong with one.

A setting is addressed by its path: ("kafka", "group"), or ("codec", "rates", "USD") for an entry of a table.
"""

import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import inspect

from stream.errors import SettingsError
from stream.nearest import did_you_mean
from stream.quantity import Duration, Size
from stream.secret import Secret, SecretUrl, is_secret_property
from stream.sections import Properties

__all__ = ["ENVIRONMENT_PREFIX", "Given", "WrongValueError", "build", "from_environment", "from_file", "from_overrides"]

ENVIRONMENT_PREFIX: Final = "FRAUDSTREAM_"
_FILE_SUFFIX: Final = "_FILE"


@dataclass(frozen=True, slots=True)
class Given:
    """One value somebody set. ``textual``: it came as text (environment, secret file) whatever its type is."""

    path: tuple[str, ...]
    raw: object
    source: str
    textual: bool = False


class WrongValueError(ValueError):
    """A value that types alone cannot refuse; the message completes "KEY in SOURCE ..."."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key
        self.what = what


# --- sources ---------------------------------------------------------------------------------------------------------


def from_file(root: type[msgspec.Struct], path: Path) -> list[Given]:
    """Read a TOML file. Numbers with a fraction stay exact (Decimal) until their type is known."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        raise SettingsError(f"the settings file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {_reason(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    return list(_flatten(root, (), table, str(path)))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"


def _flatten(kind: type[Any], path: tuple[str, ...], value: object, source: str) -> Iterator[Given]:
    if _is_section(kind):
        if not isinstance(value, dict):
            raise SettingsError(f"{'.'.join(path)} in {source} must be a table, written [{'.'.join(path)}]")
        known = _types(kind)
        for name, inner in value.items():
            here = (*path, name)
            yield from _flatten(_bare(known[_known(name, known, here, source)]), here, inner, source)
    elif _is_table(kind):
        if not isinstance(value, dict):
            raise SettingsError(f"{'.'.join(path)} in {source} must be a table, written [{'.'.join(path)}]")
        entries = _dotted(value) if kind is Properties else value.items()
        for name, inner in entries:
            yield Given((*path, name), inner, source)
    else:
        yield Given(path, value, source)


def _dotted(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Name each leaf of nested tables: TOML reads `sasl.mechanism = "PLAIN"` as a table inside a table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in _dotted(value))
        else:
            yield name, value


def from_environment(root: type[msgspec.Struct], environ: Mapping[str, str]) -> list[Given]:
    """Read FRAUDSTREAM_SECTION__KEY variables, and FRAUDSTREAM_SECTION__KEY_FILE, which names a file to read.

    A name without a double underscore is none of ours: orchestrators set such ones (FRAUDSTREAM_SERVICE_HOST).
    """
    given = []
    for variable in sorted(environ):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or "__" not in name:
            continue
        text, path = environ[variable], _environment_path(root, name)
        if path is None and name.endswith(_FILE_SUFFIX):
            path = _environment_path(root, name.removesuffix(_FILE_SUFFIX))
            text = _file_text(variable, text) if path is not None else text
        if path is None:
            raise SettingsError(_unknown_variable(root, variable, name))
        given.append(Given(path, text, variable, textual=True))
    return given


def _environment_path(root: type[msgspec.Struct], name: str) -> tuple[str, ...] | None:
    """Find the setting that a variable names; None if there is none. A property's underscores are its dots."""
    parts = name.split("__")
    kind: Any = root
    for depth, part in enumerate(parts):
        if _is_table(kind):
            if depth != len(parts) - 1 or (kind is Properties and part.endswith(_FILE_SUFFIX)):
                return None
            entry = part.lower().replace("_", ".") if kind is Properties else part
            return (*(done.lower() for done in parts[:depth]), _our_case(parts[:depth], entry))
        known = _types(kind) if _is_section(kind) else {}
        if part.lower() not in known:
            return None
        kind = _bare(known[part.lower()])
    return None if _is_section(kind) or _is_table(kind) else tuple(part.lower() for part in parts)


def _our_case(table: list[str], entry: str) -> str:
    """Keep a currency's capitals; our own field names are lower case."""
    return entry.upper() if table[-1:] == ["RATES"] else entry.lower()


def _file_text(variable: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file {file} that {variable} names cannot be read: {_reason(error)}") from None


def _unknown_variable(root: type[msgspec.Struct], variable: str, name: str) -> str:
    known = [ENVIRONMENT_PREFIX + "__".join(path).upper() for path in _leaves(root, ())]
    return f"{variable} is no setting{did_you_mean(ENVIRONMENT_PREFIX + name, known)}"


def from_overrides(root: type[msgspec.Struct], overrides: Mapping[str, object]) -> list[Given]:
    """Read values by dotted key, as the command line gives them; None means not given."""
    given = []
    for key, value in overrides.items():
        if value is None:
            continue
        tree: object = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        given += list(_flatten(root, (), tree, "the command line"))
    return given


# --- building --------------------------------------------------------------------------------------------------------


def build(kind: type[Any], given: Iterable[Given], depth: int = 0) -> Any:
    """Build a section from all that was given for it; a later value wins over an earlier one."""
    by_name: dict[str, list[Given]] = {}
    for one in given:
        by_name.setdefault(one.path[depth], []).append(one)
    values: dict[str, Any] = {}
    hints = _types(kind)
    for name, ours in by_name.items():
        hint = hints[name]
        bare = _bare(hint)
        if _is_section(bare):
            values[name] = build(bare, ours, depth + 1)
        elif bare is Properties:
            values[name] = Properties({one.path[-1]: _property(one) for one in ours})
        elif _is_table(bare):
            values[name] = {one.path[-1]: _entry(one, bare.__args__[1]) for one in ours}
        else:
            values[name] = _read(ours[-1], hint)
    return kind(**values)


def _property(one: Given) -> str | Secret:
    raw = one.raw
    if not isinstance(raw, (str, bool, int, Decimal)):
        raise SettingsError(f"{'.'.join(one.path)} in {one.source} must be a text, a number or true / false")
    text = str(raw).lower() if isinstance(raw, bool) else str(raw)
    return Secret(text) if is_secret_property(one.path[-1]) else text


def _entry(one: Given, kind: Any) -> Any:
    """Read an entry of a table: a text, or (for field names) a text or a list of texts."""
    raw = one.raw
    if kind is str:
        raw = str(raw) if isinstance(raw, (int, Decimal)) and not isinstance(raw, bool) else raw
    elif isinstance(raw, str):
        raw = raw.split(",") if one.textual else [raw]
    return _read(Given(one.path, raw, one.source), kind)


def _read(one: Given, hint: Any) -> Any:
    raw: Any = float(one.raw) if isinstance(one.raw, Decimal) else one.raw
    kind = inspect.type_info(hint)
    kind = kind.type if isinstance(kind, inspect.Metadata) else kind
    if one.textual and isinstance(kind, inspect.VarTupleType):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    try:
        return msgspec.convert(raw, hint, strict=not one.textual, dec_hook=_custom)
    except (msgspec.ValidationError, ValueError, TypeError):
        shown = "" if isinstance(kind, inspect.CustomType) and issubclass(kind.cls, Secret) else f", not {raw!r}"
        raise SettingsError(f"{'.'.join(one.path)} in {one.source} must be {_expectation(kind)}{shown}") from None


def _custom(kind: type[Any], raw: Any) -> Any:
    if kind in (Duration, Size):
        return kind.parse(raw)
    if kind in (Secret, SecretUrl) and isinstance(raw, str):
        return kind(raw)
    raise ValueError(raw)


def _expectation(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values):
            return "one of " + ", ".join(f'"{value}"' for value in sorted(map(str, values)))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            bounds = (("above", kind.gt), ("at least", kind.ge), ("below", kind.lt), ("at most", kind.le))
            said = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
            return f"a {'whole ' * isinstance(kind, inspect.IntType)}number {said}".rstrip()
        case inspect.StrType(pattern=str(pattern)):
            return f"a text of the form {pattern}"
        case inspect.StrType(min_length=1):
            return "a text that is not empty"
        case inspect.VarTupleType():
            return "a list of texts"
        case inspect.CustomType(cls) if issubclass(cls, (Duration, Size)):
            return cls.expectation
    return "a text"


# --- names -----------------------------------------------------------------------------------------------------------


def _known(name: str, known: Iterable[str], path: tuple[str, ...], source: str) -> str:
    names = list(known)
    if name not in names:
        known_here = f"; known here: {', '.join(names)}"
        raise SettingsError(f"{'.'.join(path)} in {source} is no setting{did_you_mean(name, names) or known_here}")
    return name


def _leaves(kind: type[Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, hint in _types(kind).items():
        if _is_section(_bare(hint)):
            yield from _leaves(_bare(hint), (*path, name))
        else:
            yield (*path, name)


def _types(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _bare(hint: Any) -> Any:
    return getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_table(kind: Any) -> bool:
    return kind is Properties or (isinstance(kind, types.GenericAlias) and kind.__origin__ is dict)
