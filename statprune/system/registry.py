"""Choices by name: our own, those of installed plugins (entry points), and those that a program registers."""

import difflib
import functools
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from statprune.errors import ChoiceError, PluginError, first_line
from statprune.system.plugin_files import import_plugin_files, is_plugin_file

T = TypeVar("T")
OWN = "statprune"  # our distribution


@dataclass(frozen=True)
class Origin:
    """Where a choice comes from.

    Attributes:
        distribution: that installed it; None: a file or a program of the user's.
        version: of the distribution, or of the file: the first 12 hexadecimal digits of its SHA-256; None: unknown.
            That of an editable installation, whose files change, ends with + and such digits of its package's files.
        module: that defines it.
    """

    distribution: str | None
    version: str | None
    module: str

    @property
    def is_own(self) -> bool:
        """Whether it comes with statprune."""
        return self.distribution == OWN


@dataclass(frozen=True)
class _Entry:
    """A choice before it is imported."""

    distribution: str | None
    version: str | None
    module: str
    attribute: str

    @property
    def described(self) -> str:
        where = f"{self.distribution} {self.version}" if self.distribution else "your own code"
        return f"{where} ({self.module}:{self.attribute})"


class Registry(Generic[T]):
    """The choices of one kind. Nothing is imported before it is asked for.

    Args:
        kind: what one choice is, in a word: score.
        group: of entry points: statprune.scores.
        own: our choices: where each is, as module:attribute.
        problem: why an object is no such choice, or None.
        reserved: names that no choice can have, since they mean something else there.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        own: Mapping[str, str],
        problem: Callable[[object], str | None],
        reserved: Collection[str] = (),
    ):
        self.kind = kind
        self.group = group
        self._own = own
        self._problem = problem
        self._reserved = reserved
        self._registered: dict[str, tuple[_Entry, T]] = {}
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """Names of all choices: ours, then those of plugins, by name.

        Raises:
            PluginError: a plugin's choice has a reserved name.
        """
        return list(self._offers())

    def __contains__(self, name: object) -> bool:
        return name in self._offers()

    def is_own(self, name: str) -> bool:
        """Whether a choice of this name comes with statprune."""
        return name in self._own

    def get(self, name: str) -> T:
        """The choice called ``name``.

        Raises:
            ChoiceError: there is none.
            PluginError: the plugin that has it can't be imported, what it has is none, or several have the name.
        """
        entry = self._entry(name)
        if name in self._registered:
            return self._registered[name][1]
        if name not in self._loaded:
            self._loaded[name] = self._load(name, entry)
        return self._loaded[name]

    def origin(self, name: str) -> Origin:
        """Where the choice called ``name`` comes from.

        Raises:
            ChoiceError: there is none.
            PluginError: several have the name.
        """
        entry = self._entry(name)
        version = entry.version
        if entry.distribution not in (None, OWN) and _is_editable(entry.distribution):
            with suppress(PluginError):  # whoever chooses it is told
                self.get(name)
                version = f"{version}+{_digest_of_package(entry.module.partition('.')[0])}"
        return Origin(entry.distribution, version, entry.module)

    def described(self, name: str) -> str:
        """The choice called ``name`` and where it comes from, for a sentence.

        Raises:
            ChoiceError: there is none.
            PluginError: several have the name.
        """
        return f"the {self.kind} {name!r} of {self._entry(name).described}"

    def unknown(self, name: str, also: tuple[str, ...] = ()) -> str:
        """A sentence about a name that no choice has.

        Args:
            name: the unknown one.
            also: names that mean something besides the choices: none.
        """
        names = [*also, *self.names()]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        return f"the {self.kind} {name!r} is unknown; {hint}"

    def register(self, name: str, value: T) -> T:
        """Add a choice to those of this process; defining it again replaces it, as a notebook does.

        Raises:
            PluginError: the user's own code takes the name of another choice, or ``value`` is no such choice.
        """
        if problem := self._problem(value):
            raise PluginError(f"the {self.kind} {name!r} can't be registered: {problem}")
        entry = _defined_at(value)
        self._check_name(name, entry)
        for other in self._offers().get(name, ()):
            if other.module != entry.module and entry.distribution is None:  # of a distribution's, its user is told
                raise PluginError(_collision(self.kind, name, other, entry))
        self._registered[name] = (entry, value)
        return value

    def name_of(self, value: T) -> str | None:
        """The name of a choice that was loaded or registered, or None."""
        known = {name: own for name, (_, own) in self._registered.items()} | self._loaded
        return next((name for name, own in known.items() if own is value), None)

    def _entry(self, name: str) -> _Entry:
        offers = self._offers()
        if name not in offers:
            raise ChoiceError(self.unknown(name))
        first, *others = offers[name]
        if others:
            raise PluginError(_collision(self.kind, name, first, others[0]))
        return first

    def _offers(self) -> dict[str, list[_Entry]]:
        """Every choice before it is imported, by name; several where a name is taken twice, which its user is told."""
        import_plugin_files()
        offers = {name: [_own_entry(place)] for name, place in self._own.items()}
        own_registered = [(name, entry) for name, (entry, _) in self._registered.items()]
        for name, entry in (*_plugin_entries(self.group), *own_registered):
            self._check_name(name, entry)
            others = offers.setdefault(name, [])
            if all(other.module != entry.module for other in others):
                others.append(entry)
        return offers

    def _check_name(self, name: str, entry: _Entry) -> None:
        if name in self._reserved:
            raise PluginError(
                f"the {self.kind} {name!r} of {entry.described} has a name that means something else there; rename it"
            )

    def _load(self, name: str, entry: _Entry) -> T:
        where = f"the {self.kind} {name!r} of {entry.described}"
        try:
            value: Any = importlib.import_module(entry.module)
            for part in entry.attribute.split("."):
                value = getattr(value, part)
        except Exception as error:
            if entry.distribution == OWN:
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise PluginError(f"{where} can't be imported ({reason}); mend or uninstall the plugin") from error
        if problem := self._problem(value):
            raise PluginError(f"{where} can't be used: {problem}")
        result: T = value
        return result


def subclass_of(base: type) -> Callable[[object], str | None]:
    """What a registry asks of its choices where they are classes of options: frozen dataclasses below ``base``."""

    def problem(value: object) -> str | None:
        if not (isinstance(value, type) and issubclass(value, base)):
            return f"it is no subclass of statprune.{base.__name__}"
        if "__dataclass_fields__" not in value.__dict__:
            return "it is no dataclass; write @dataclass(frozen=True) above the class"
        return None

    return problem


def _own_entry(place: str) -> _Entry:
    module, _, attribute = place.partition(":")
    return _Entry(OWN, _own_version(), module, attribute)


@functools.cache
def _own_version() -> str:
    return metadata.version(OWN)


@functools.cache
def _plugin_entries(group: str) -> tuple[tuple[str, _Entry], ...]:
    """Entry points of installed distributions, by name."""
    found = []
    for point in metadata.entry_points(group=group):
        distribution, version = (point.dist.name, point.dist.version) if point.dist is not None else (None, None)
        found.append((point.name, _Entry(distribution, version, point.module, point.attr)))
    return tuple(sorted(found, key=lambda item: (item[0], item[1].described)))


def _collision(kind: str, name: str, first: _Entry, second: _Entry) -> str:
    return (
        f"there are two of the {kind} {name!r}: of {first.described} and of {second.described}; "
        "rename one of them, or uninstall it"
    )


def _defined_at(value: object) -> _Entry:
    """Where a value that a program registers is defined."""
    module = str(getattr(value, "__module__", "__main__"))
    attribute = str(getattr(value, "__qualname__", type(value).__qualname__))
    package = module.partition(".")[0]
    if package == OWN:
        return _Entry(OWN, _own_version(), module, attribute)
    for distribution in () if is_plugin_file(module) else _distributions(tuple(sys.path)).get(package, ()):
        return _Entry(distribution, metadata.version(distribution), module, attribute)
    file = getattr(sys.modules.get(module), "__file__", None)
    version = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file and Path(file).is_file() else None
    return _Entry(None, version, Path(file).name if file else module, attribute)


@functools.lru_cache(maxsize=2)
def _distributions(path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Which distributions have a package, on this ``sys.path``; half a second where many are installed."""
    return metadata.packages_distributions()


@functools.cache
def _is_editable(distribution: str) -> bool:
    """Whether an installation is a link to a folder whose files somebody changes."""
    try:
        text = metadata.distribution(distribution).read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # its entry point is there, and nothing else
        return False
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


@functools.cache
def _digest_of_package(package: str) -> str:
    """The first 12 hexadecimal digits of a hash of the Python files of a package that is imported, or of a module."""
    module = sys.modules[package]
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(str(module.__file__))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
