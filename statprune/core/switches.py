"""Options that another option switches off: a value given to one of them would do nothing, without a word."""

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_unused(options: "DataclassInstance", names: tuple[str, ...], group: str, switch: str) -> None:
    """Raise ValueError where an option that is switched off has another value than its default.

    Args:
        options: instance of a dataclass whose fields have defaults.
        names: of the fields that mean nothing.
        group: of the configuration: method or compensation.
        switch: the key and value that switches them off, as it is written.
    """
    defaults = {item.name: item.default for item in fields(options)}
    for name in names:
        value = getattr(options, name)
        if value != defaults[name]:
            shown = str(value).lower() if isinstance(value, bool) else getattr(value, "value", value)
            raise ValueError(f"{group}.{name}={shown} has no effect with {group}.{switch}; leave one of them out")
