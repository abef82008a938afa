"""A choice between candidates as tables of 80 columns, and as plain values."""

import json
import shlex
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from statprune.analysis.choice import Choice
from statprune.analysis.compare_text import WIDTH, interval_text
from statprune.runs.wording import counted, shown
from statprune.system.files import finite


def print_choice(choice: Choice) -> None:
    """Print the candidates' errors, the whole runs, and which to use."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    blocks = ", ".join(map(str, choice.blocks))
    title = f"errors of single layers on unseen windows, block{'s' if len(choice.blocks) > 1 else ''} {blocks}"
    table = Table(title=f"{title} ({choice.spent:.0f} s)", title_justify="left")
    table.add_column("candidate", overflow="fold")
    table.add_column("relative output error", justify="right")
    table.add_column("seconds for the model", justify="right")
    for each in choice.candidates:
        error = f"{each.error:.4f}" if each.error is not None else ""
        table.add_row(each.label, error, f"{each.seconds:.0f}" if each.seconds is not None else "")
    console.print(table)
    for each in choice.candidates:
        if each.remark is not None:
            console.print(f"{each.label} is out: {each.remark}", soft_wrap=True)
    for dataset in dict.fromkeys(name for own in choice.runs for name in own.perplexity):
        whole = Table(title=f"whole runs: perplexity on {dataset}", title_justify="left")
        for column in ("candidate", "dense", "pruned", "difference in mean loss (95%)", "seconds"):
            whole.add_column(column, justify="left" if column == "candidate" else "right", overflow="fold")
        for own in choice.runs:
            number = own.perplexity[dataset]
            cells = [shown(number.dense), shown(number.pruned), interval_text(number)]
            cells.append(f"{own.seconds:.1f}" if own.seconds is not None else "")
            whole.add_row(own.label, *cells)
        console.print(whole)
    for own in choice.runs:
        console.print(f"{own.label}: {own.folder}", soft_wrap=True)
    overrides = next(each.overrides for each in choice.candidates if each.label == choice.chosen)
    console.print(f"Use {choice.chosen}: {choice.reason}.", soft_wrap=True)
    console.print(f"  statprune {shlex.join(overrides)}", soft_wrap=True)
    if not choice.runs:
        console.print(f"({counted(len(choice.blocks), 'block')} say less than a whole run.)")


def to_json(choice: Choice) -> str:
    """The choice as JSON; a number that there is not is null."""
    values: dict[str, object] = asdict(choice)
    return json.dumps(finite(values), indent=2, default=str)
