"""``@statprune.register``: make a class a choice of its kind."""

from collections.abc import Callable
from typing import Any, TypeVar

from statprune.core.compensation import COMPENSATIONS, Compensation
from statprune.core.methods import METHODS, Method
from statprune.core.patterns import PATTERNS, Pattern
from statprune.core.refinement import REFINEMENTS, Refinement
from statprune.data.sources import SOURCES, Source
from statprune.errors import PluginError
from statprune.pruning.allocation import ALLOCATIONS, Allocation
from statprune.system.registry import Registry

C = TypeVar("C", bound=type)

# the registry of each base class
KINDS: tuple[tuple[type, Registry[Any]], ...] = (
    (Method, METHODS),
    (Refinement, REFINEMENTS),
    (Compensation, COMPENSATIONS),
    (Pattern, PATTERNS),
    (Allocation, ALLOCATIONS),
    (Source, SOURCES),
)


def register(name: str) -> Callable[[C], C]:
    """Make the class below this decorator a choice called ``name``; its base class says of which kind.

    It stands above ``@dataclass(frozen=True)``. A score is a function, and has a decorator of its own:
    ``@statprune.score()``.

    Args:
        name: for the command: ``compensation=NAME``.

    Raises:
        PluginError: the class is of no kind or no dataclass, or another choice has the name.
    """

    def registered(cls: C) -> C:
        for base, registry in KINDS:
            if isinstance(cls, type) and issubclass(cls, base):
                registry.register(name, cls)
                return cls
        bases = ", ".join(base.__name__ for base, _ in KINDS)
        what = getattr(cls, "__qualname__", type(cls).__name__)
        raise PluginError(
            f"{name!r} can't be registered: {what} is a subclass of none of statprune's {bases}; "
            "a score is a function under @statprune.score()"
        )

    return registered
