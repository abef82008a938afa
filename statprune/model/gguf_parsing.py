"""Have a .gguf file parsed once while transformers opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def parsed_once() -> Iterator[None]:
    """Let all readers of the same file, and all maps of the same tensor names, be one.

    transformers parses the whole file, vocabulary included, for the configuration, for the tokenizer and for the
    weights, and makes a map of names for every submodule: most of the time that a small model takes. It only reads
    from both.
    """
    import gguf

    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, original in originals.items():
        setattr(gguf, name, cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)
