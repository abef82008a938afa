"""Footnotes of a table: where the digits of its published values stand, and how they were measured there."""

from collections.abc import Collection
from dataclasses import dataclass
from string import ascii_lowercase

from statprune.config.provenance import Provenance
from statprune.config.table_spec import Place, Table

HEAD = "source"  # of the column of marks
EXPLANATION = f"{HEAD}: where the published value stands with these digits, and how it was measured there."


@dataclass(frozen=True)
class Footnotes:
    """A table's footnotes.

    Attributes:
        marks: a letter by place.
        sentences: what each letter stands for, in order.
    """

    marks: dict[Place, str]
    sentences: dict[str, str]


def footnotes(table: Table, places: Collection[Place]) -> Footnotes:
    """A letter for all places whose published values have the same origin and protocol.

    Args:
        table: the layout.
        places: that are shown.
    """
    letters: dict[str, str] = {}
    marks = {}
    for section in table.sections:
        for row in table.rows:
            for column in table.columns:
                place = (section, row, column)
                if place in places and place in table.provenance:
                    sentence = sentence_of(table.provenance[place])
                    marks[place] = letters.setdefault(sentence, ascii_lowercase[len(letters)])
    return Footnotes(marks, {letter: sentence for sentence, letter in letters.items()})


def sentence_of(provenance: Provenance) -> str:
    """Origin and protocol in a sentence."""
    return f"{provenance.origin}; {provenance.protocol}."
