"""The README.md of a saved model: what was done to it, on what data, and what it cost."""

from pathlib import Path
from typing import Any

from statprune.runs.record import shown, stderr_of


def model_card(record: dict[str, Any]) -> str:
    """Markdown with the hub's metadata header, from a run record."""
    config, sparsity, calibration = record["config"], record["sparsity"], record["calibration"]
    path = config["model"]["path"]
    lines = ["---"]
    if "://" not in path and not Path(path).exists() and path.count("/") == 1:
        lines.append(f"base_model: {path}")
    pruned = calibration is not None
    tags = "tags: [statprune, pruned, sparse]" if pruned else "tags: [statprune]"
    lines += ["library_name: transformers", "pipeline_tag: text-generation", tags, "---"]
    lines += ["", f"# {Path(path).name}, {'pruned' if pruned else 'measured, not pruned,'} by statprune", ""]
    rows = [
        (
            "base model",
            f"`{path}`" + (f", revision {config['model']['revision']}" if config["model"]["revision"] else ""),
        )
    ]
    rows.append(("method", _described(config["method"])))
    rows.append(("compensation", _described(config["compensation"])))
    if pruned:
        achieved = f"achieved {sparsity['achieved']:.5f} over all block matrices"
        rows.append(("sparsity", f"{_pattern(config['sparsity'])}; {achieved}"))
        options = config["calibration"]
        data = (
            f"{options['source']}, {options['samples']} windows of {options['seq_len']} tokens, seed {config['seed']}"
        )
        rows.append(("calibration", f"{data}; propagation {config['propagation']}"))
    left = {name: kind for name, kind in record["coverage"]["kinds"].items() if kind["left"]}
    if left:
        names = ", ".join(
            f"{name} ({kind['left']:,} weights, {' and '.join(kind['reasons'])})" for name, kind in left.items()
        )
        rows.append(("left dense", names))
    packages = record["environment"]["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("statprune", "torch", "transformers"))
    rows.append(("made with", f"{versions}; config {record['config_hash']}"))
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows), ""]
    perplexity = record["metrics"]["perplexity"]
    if perplexity:
        lines += ["| perplexity on | dense | pruned |", "| --- | --- | --- |"]
        for source, values in perplexity.items():
            where = f"{source}, {values['windows']} windows of {values['seq_len']} tokens"
            lines.append(f"| {where} | {shown(values['dense'])} | {shown(values['pruned'])} |")
    else:
        lines.append("Its perplexity was not measured.")
    if zero_shot := record["metrics"].get("zero_shot"):
        lines += ["", *_accuracies(zero_shot)]
    return "\n".join(lines) + "\n"


def _accuracies(zero_shot: dict[str, Any]) -> list[str]:
    """The tasks' table; a limit is told in its head, where the numbers are."""
    protocol, mean = zero_shot["protocol"], zero_shot["mean"]
    limit = f", only the first {protocol['limit']} documents of each" if protocol["limit"] else ""
    lines = [f"| task (lm-eval {protocol['lm_eval']}{limit}) | metric | shots | documents | dense | pruned |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, task in zero_shot["tasks"].items():
        metric = task["metric"]
        cells = [f"{name}, version {task['version']}", metric, task["shots"], task["documents"]]
        cells += [_number(task[side], metric, stderr_of(metric)) for side in ("dense", "pruned")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if len(zero_shot["averaged"]) > 1:
        cells = [_number(mean, side, f"{side}_stderr") for side in ("dense", "pruned")]
        lines.append(f"| mean of {', '.join(zero_shot['averaged'])} | | | | {' | '.join(cells)} |")
    return lines


def _number(values: dict[str, Any], key: str, error: str) -> str:
    known = values.get(error)
    if values.get(key) is None:
        return "none"
    return f"{values[key]:.4f}" + ("" if known is None else f" ± {known:.4f}")


def _described(options: dict[str, Any]) -> str:
    values = ", ".join(f"{key} {value}" for key, value in options.items() if key != "name")
    return f"{options['name']} ({values})" if values else str(options["name"])


def _pattern(options: dict[str, Any]) -> str:
    if options["keep"] is not None:
        return f"{options['keep']}:{options['of']}"
    if options["layer_ratios"] is not None:
        return f"unstructured, compared by {options['group']}, ratios given by layer"
    return f"unstructured {options['ratio']}, compared by {options['group']}, allocation {options['allocation']}"
