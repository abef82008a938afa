"""The paper's own values as Markdown, each with the mark of where its digits stand; it needs no run."""

from collections.abc import Iterable

from statprune.analysis.provenance_text import footnotes
from statprune.config.provenance import Provenance
from statprune.config.table_spec import Place, Table, place_name

HEAD = (
    "# What the paper published, and where else its digits stand",
    "",
    "Computed from `tables/published.csv`, `tables/elsewhere.csv` and `tables/sources.yaml`, as "
    "`statprune tables all --scale paper --published` prints it.",
    "",
)


def published_markdown(tables: Iterable[Table]) -> str:
    """All published values of tables; empty: there are none.

    Args:
        tables: those without a published value are left out.
    """
    lines = [line for table in tables if table.published for line in _table(table)]
    return "\n".join([*HEAD, *lines]) if lines else ""


def _table(table: Table) -> list[str]:
    notes = footnotes(table, table.published)
    places = {found.cell: place for place, found in reversed(table.provenance.items())}  # a dense cell once
    cells_of_paper = [table.provenance[place] for place in places.values()]
    with_others = sum(bool(found.same or found.differing) for found in cells_of_paper)
    lines = [f"## {table.title} ({table.source})", ""]
    lines += [
        f"Of {len(places)} cells {with_others} have a counterpart elsewhere, of the same model, sparsity and method, "
        f"and {sum(bool(found.same) for found in cells_of_paper)} of these have the same digits there.",
        "",
    ]
    for section in table.sections:
        lines += [f"**{section}**", ""] if section else []
        lines += [_line(["", *table.columns]), _line(["---"] * (1 + len(table.columns)))]
        for row in table.rows:
            cells = [_cell(table, (section, row, column), notes.marks) for column in table.columns]
            lines += [_line([row, *cells])] if any(cells) else []
        lines.append("")
    lines += [f"- {letter}: {text}" for letter, text in notes.sentences.items()] + [""]
    others = [
        f"- {_name(place, found)}: {found.other_values}"
        for place, found in table.provenance.items()
        if found.differing and places[found.cell] == place
    ]
    return lines + (["With other digits elsewhere:", "", *others, ""] if others else [])


def _name(place: Place, known: Provenance) -> str:
    """The place; the dense model has no sparsity, whatever its section."""
    return place_name(("", *place[1:]) if known.cell[2] == "0" else place)


def _cell(table: Table, place: Place, marks: dict[Place, str]) -> str:
    value = table.published.get(place)
    return "" if value is None else f"{value:.2f} {marks[place]}"  # the paper has two decimals everywhere


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
