"""The tables at the end of a run, from its record."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(record: dict[str, Any], folder: Path) -> None:
    """The table at the end of a run."""
    config = record["config"]
    table = Table(title=f"{config['method']['name']} + {config['compensation']['name']}", show_header=False)
    for source, values in record["metrics"]["perplexity"].items():
        where = f"{source}, {values['windows']} windows of {values['seq_len']}"
        table.add_row(f"perplexity dense ({where})", f"{values['dense']:.4f}")
        table.add_row(f"perplexity pruned ({where})", f"{values['pruned']:.4f}")
    table.add_row(
        "sparsity achieved (target)", f"{record['sparsity']['achieved']:.5f} ({record['sparsity']['target']:.6g})"
    )
    ratios = [ratio for ratio in record["sparsity"]["blocks"] if ratio is not None]
    if ratios and max(ratios) - min(ratios) > 1e-3:
        table.add_row("sparsity of blocks", f"{min(ratios):.4f} to {max(ratios):.4f}")
    for key in ("experts_with_pooled_statistics", "experts_without_tokens"):
        if record["coverage"][key]:
            table.add_row(key.replace("_", " "), f"{record['coverage'][key]:,}")
    for phase, value in record["seconds"].items():
        table.add_row(f"seconds {phase}", f"{value:.1f}")
    memory = record["memory"]
    for where in ("host", "device"):
        if peak := memory[f"peak_{where}_bytes"]:
            predicted = f"{memory[f'predicted_{where}_bytes'] / 2**30:.2f}"
            table.add_row(f"peak {where} memory (predicted)", f"{peak / 2**30:.2f} GiB ({predicted})")
    console = Console()
    console.print(table)
    console.print(_coverage_table(record["coverage"]))
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    console.print(f"files: {shown}", soft_wrap=True)


def _coverage_table(covered: dict[str, Any]) -> Table:
    table = Table(title="matrix weights of all blocks")
    table.add_column("module")
    for name in ("prunable", "pruned", "left dense"):
        table.add_column(name, justify="right")
    table.add_column("reason")
    total = {"prunable": covered["prunable"], "pruned": covered["pruned"], "left": covered["skipped"], "reasons": {}}
    for name, kind in [*covered["kinds"].items(), ("all", total)]:
        table.add_row(name, *(f"{kind[key]:,}" for key in ("prunable", "pruned", "left")), ", ".join(kind["reasons"]))
    return table
