"""Plugins that are files of the user's: imported in every process of a command, each once."""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from statprune.errors import PluginError, first_line

# in the environment, since jobs of a sweep may run in other processes: absolute paths and module names
PLUGINS = "STATPRUNE_PLUGINS"
_IMPORTED: set[str] = set()  # by this process
_MODULES: set[str] = set()  # names that files were imported under


def use_plugin_files(names: Sequence[str]) -> None:
    """Import plugins, here and in the processes that this one starts.

    Args:
        names: of Python files (with a path that ends in .py) and of modules.

    Raises:
        PluginError: one of them is not there, or can't be imported.
    """
    places = [str(Path(name).expanduser().absolute()) if name.endswith(".py") else name for name in names]
    before = os.environ.get(PLUGINS, "").split(os.pathsep)
    os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([place for place in before if place] + places))
    import_plugin_files()


def use_what_can_be_imported(names: Sequence[str]) -> list[str]:
    """As ``use_plugin_files``, without the plugins that can't be imported; a sentence for each of those."""
    problems = []
    for name in names:
        before = os.environ.get(PLUGINS, "")
        try:
            use_plugin_files([name])
        except PluginError as error:
            os.environ[PLUGINS] = before
            problems.append(str(error))
    return problems


def import_plugin_files() -> None:
    """Import the plugins that this process or the one that started it was told of."""
    for place in os.environ.get(PLUGINS, "").split(os.pathsep):
        if place:
            _import(place)


def is_plugin_file(module: str) -> bool:
    """Whether the module of this name is a file of the user's."""
    return module in _MODULES


def _import(place: str) -> None:
    if place in _IMPORTED:
        return
    _IMPORTED.add(place)  # before its code runs, which asks for registries that import plugins first
    try:
        _run_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except PluginError:
        _IMPORTED.discard(place)
        raise
    except Exception as error:
        _IMPORTED.discard(place)
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise PluginError(f"the plugin {place} can't be imported ({reason}); mend it, or leave it out") from error


def _run_file(file: Path) -> None:
    if not file.is_file():
        raise PluginError(f"the plugin {file} is no file; give the path of a Python file, or a module's name")
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"  # unlike that of any other module
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    _MODULES.add(name)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
