"""Descriptions, attributes and units, as docstrings have them."""

from dataclasses import dataclass

from statprune.system.docstrings import Described, attributes, described, description, summary


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        length: of a window [tokens].
        kept: stays as it is.
    """

    length: int = 1
    kept: int = 2


@dataclass(frozen=True)
class Options(Base):
    """Options of ``something``, |x|
    on two lines (Author 2024).

    More about it:

        y = 2 x

    Attributes:
        length: of another
            window; None: all [windows].
        power (float): exponent.

    Raises:
        ValueError: never.
    """

    power: float = 0.5


@dataclass(frozen=True)
class Silent(Base):
    other: int = 1


def test_a_description_ends_where_the_sections_begin():
    text = description(Options)
    assert text.startswith("Options of `something`, |x|") and text.endswith("    y = 2 x")


def test_a_summary_is_the_first_paragraph_on_one_line():
    assert summary(description(Options)) == "Options of `something`, |x| on two lines (Author 2024)."


def test_attributes_have_meanings_and_units_and_those_of_bases_are_inherited():
    assert attributes(Options) == {
        "length": Described("of another window; None: all", "windows"),
        "kept": Described("stays as it is", None),
        "power": Described("exponent", None),
    }


def test_a_dataclass_without_a_docstring_describes_nothing_itself():
    assert description(Silent) == "" and set(attributes(Silent)) == {"length", "kept"}


def test_only_brackets_at_the_end_are_a_unit():
    assert described("in [0, 1), or less") == Described("in [0, 1), or less", None)
    assert described("a share [fraction].") == Described("a share", "fraction")
