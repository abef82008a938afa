"""The tables at the end of a run, from its record."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from statprune.runs.record import shown, stderr_of


def print_summary(record: dict[str, Any], folder: Path) -> None:
    """The table at the end of a run."""
    config = record["config"]
    table = Table(title=f"{config['method']['name']} + {config['compensation']['name']}", show_header=False)
    for source, values in record["metrics"]["perplexity"].items():
        where = f"{source}, {values['windows']} windows of {values['seq_len']}"
        table.add_row(f"perplexity dense ({where})", shown(values["dense"]))
        table.add_row(f"perplexity pruned ({where})", shown(values["pruned"]))
    table.add_row(
        "sparsity achieved (target)", f"{record['sparsity']['achieved']:.5f} ({record['sparsity']['target']:.6g})"
    )
    ratios = [ratio for ratio in record["sparsity"]["blocks"] if ratio is not None]
    if ratios and max(ratios) - min(ratios) > 1e-3:
        table.add_row("sparsity of blocks", f"{min(ratios):.4f} to {max(ratios):.4f}")
    for key in ("experts_with_pooled_statistics", "experts_without_tokens"):
        if record["coverage"][key]:
            table.add_row(key.replace("_", " "), f"{record['coverage'][key]:,}")
    if judged := record.get("correction"):
        table.add_row("layers corrected (left as they were)", f"{judged['corrected']} ({judged['left']})")
        if judged["output_error_before"] is not None:
            errors = f"{judged['output_error_before']:.4f}, {judged['output_error_after']:.4f}"
            table.add_row("mean relative output error before, after", errors)
    for phase, value in record["seconds"].items():
        table.add_row(f"seconds {phase}", f"{value:.1f}")
    memory = record["memory"]
    for where in ("host", "device"):
        if peak := memory[f"peak_{where}_bytes"]:
            predicted = f"{memory[f'predicted_{where}_bytes'] / 2**30:.2f}"
            table.add_row(f"peak {where} memory (predicted)", f"{peak / 2**30:.2f} GiB ({predicted})")
    console = Console()
    if not console.is_terminal:  # a file is as wide as its widest table
        console.width = 120
    console.print(table)
    if zero_shot := record["metrics"].get("zero_shot"):
        console.print(_accuracy_table(zero_shot))
    console.print(_coverage_table(record["coverage"]))
    here = Path.cwd()
    place = folder.relative_to(here) if folder.is_relative_to(here) else folder
    console.print(f"files: {place}", soft_wrap=True)


def accuracy_line(zero_shot: dict[str, Any]) -> str:
    """The mean accuracy for a line of a sweep."""
    mean, limit = zero_shot["mean"], zero_shot["protocol"]["limit"]
    if mean["dense"] is None or mean["pruned"] is None:
        return f"{len(zero_shot['tasks'])} zero-shot tasks without a mean accuracy"
    text = f"zero-shot accuracy {mean['dense']:.4f} dense, {mean['pruned']:.4f} pruned"
    return text + (f" (first {limit} documents of each task)" if limit else "")


def _accuracy_table(zero_shot: dict[str, Any]) -> Table:
    """A row for each task and one for the mean; ± is a standard error, the difference's over the same documents."""
    tasks, mean, limit = zero_shot["tasks"], zero_shot["mean"], zero_shot["protocol"]["limit"]
    # what all tasks have in common is told once
    cells = {name: {"metric": task["metric"], "shots": str(task["shots"])} for name, task in tasks.items()}
    shared = {key: {task[key] for task in cells.values()} for key in ("metric", "shots")}
    varying = [key for key, values in shared.items() if len(values) > 1]
    told = [*shared["metric"]] if "metric" not in varying else []
    told += [f"{shots} shots" for shots in shared["shots"]] if "shots" not in varying else []
    told += [f"only the first {limit} documents of each task"] if limit else []
    table = Table(title="zero-shot accuracy" + (f": {', '.join(told)}" if told else ""))
    for name in ("task", *varying):
        table.add_column(name)
    for name in ("n", "dense", "pruned", "difference"):
        table.add_column(name, justify="right")
    for name, task in tasks.items():
        error = stderr_of(task["metric"])
        sides = [_with_error(task[side][task["metric"]], task[side].get(error)) for side in ("dense", "pruned")]
        difference = _with_error(task["difference"], task["difference_stderr"], "+")
        table.add_row(name, *(cells[name][key] for key in varying), str(task["documents"]), *sides, difference)
    if mean["dense"] is not None and len(zero_shot["averaged"]) > 1:
        sides = [_with_error(mean[side], mean[f"{side}_stderr"]) for side in ("dense", "pruned")]
        difference = _with_error(mean["difference"], mean["difference_stderr"], "+")
        table.add_section()
        table.add_row(f"mean of {len(zero_shot['averaged'])}", *("" for _ in varying), "", *sides, difference)
    return table


def _with_error(value: float | None, error: float | None, sign: str = "") -> str:
    if value is None:  # not finite, or not a number
        return "none"
    digits = ".4f" if abs(value) < 100 else ".6g"
    return f"{value:{sign}{digits}}" + ("" if error is None else f" ± {error:{digits}}")


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
