"""The README.md of a saved model: what was done to it, on what data, and what it cost."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from statprune.config.choices import NONE
from statprune.evaluation.accuracy import ZeroShotResult, stderr_of
from statprune.model.base_card import BaseCard
from statprune.model.coverage import Coverage
from statprune.pruning.report import MatrixReport
from statprune.runs.card_parts import PLACE, checks, head, header, licence, row, table_of, usage
from statprune.runs.environment import Environment
from statprune.runs.record import RunRecord
from statprune.runs.wording import fidelity_shown, shown, with_error


@dataclass(frozen=True)
class CardSources:
    """What a card tells besides the record.

    Attributes:
        command: that the run began with; None: it was not started by one.
        reports: of the matrices that were pruned.
        base: what the base model's own card says.
    """

    command: str | None = None
    reports: Sequence[MatrixReport] = ()
    base: BaseCard = field(default_factory=BaseCard)


def model_card(record: RunRecord, sources: CardSources | None = None) -> str:
    """Markdown with the hub's metadata header.

    Args:
        record: of the run that saved the model.
        sources: what is told besides; None: nothing.
    """
    sources = sources or CardSources()
    what = "pruned" if record.is_pruned else "measured, not pruned,"
    is_compressed = record.saved is not None and record.saved.compressed is not None
    lines = header(record.config["model"]["path"], what, record.is_pruned, sources.base, is_compressed)
    lines += table_of(_facts(record))
    if record.perplexity:
        lines += head(["perplexity on", *_sides(record.is_pruned, "perplexity")])
        for source, perplexity in record.perplexity.items():
            where = f"{source}, {perplexity.windows} windows of {perplexity.seq_len} tokens"
            cells = [shown(perplexity.dense), *([shown(perplexity.pruned)] if record.is_pruned else [])]
            lines.append(row([where, *cells]))
    else:
        lines.append("Its perplexity was not measured.")
    if record.fidelity:
        lines += ["", *head(["fidelity to the base model on", "KL divergence (nats per token)", "top-1 agreement"])]
        lines += [row([source, *fidelity_shown(own)]) for source, own in record.fidelity.items()]
    if record.zero_shot is not None:
        lines += ["", *_accuracies(record.zero_shot, record.is_pruned)]
    lines += _kinds(record, sources.reports)
    place = record.config.get("push_to_hub") or PLACE
    lines += usage(place, is_compressed, bool(record.config["model"].get("trust_remote_code")))
    lines += checks(place, of_run=True)
    if sources.command is not None:
        lines += ["", "## How it was made", "", "```sh", sources.command, "```"]
    return "\n".join([*lines, *licence(sources.base)]) + "\n"


def _kinds(record: RunRecord, reports: Sequence[MatrixReport]) -> list[str]:
    """Zeros by kind of matrix, of those that were pruned."""
    weights, zeros = Counter[str](), Counter[str]()
    for report in reports:
        own = _kind_of(report.name, record.coverage)
        weights[own] += report.weights
        zeros[own] += round(report.sparsity * report.weights)
    if not weights:
        return []
    lines = ["", *head(["matrices", "weights", "of these pruned", "zeros among the pruned"])]
    for name, kind in record.coverage.kinds.items():
        share = f"{zeros[name] / weights[name]:.5f}" if weights[name] else ""
        lines.append(row([name, f"{kind.prunable + kind.skipped:,}", f"{weights[name]:,}", share]))
    return lines


def _kind_of(name: str, coverage: Coverage) -> str:
    """The kind of a matrix as the coverage names it: its name in a block, of experts that of their stack."""
    if name in coverage.kinds:
        return name
    return re.sub(r"\.\d+(?=\.|$)", ".*", re.sub(r"\[\d+\]$", "", name))


def left_dense(coverage: Coverage, is_pruned: bool = True) -> dict[str, str]:
    """The fact of matrices that were not pruned, or can't be where nothing was; none where there are no such ones."""
    skipped = [
        f"{name} ({kind.skipped:,} weights, {' and '.join(kind.reasons)})"
        for name, kind in coverage.kinds.items()
        if kind.skipped
    ]
    return {"left dense" if is_pruned else "not prunable": ", ".join(skipped)} if skipped else {}


def versions_of(environment: Environment) -> str:
    """Versions of what decides a model's numbers."""
    return ", ".join(f"{name} {environment.packages[name]}" for name in ("statprune", "torch", "transformers"))


def _facts(record: RunRecord) -> dict[str, str]:
    """Rows of the first table."""
    config, model = record.config, record.config["model"]
    refinement = config.get("refinement")  # configurations of older versions have none
    facts = {
        "base model": f"`{model['path']}`" + (f", revision {model['revision']}" if model["revision"] else ""),
        "method": options_in_words(config["method"]),
        **({"refinement": options_in_words(refinement)} if refinement and refinement["name"] != NONE else {}),
        "compensation": options_in_words(config["compensation"]),
    }
    if record.is_pruned:
        achieved = f"achieved {record.sparsity.achieved:.5f} over all block matrices"
        facts["sparsity"] = f"{_pattern(config['sparsity'])}; {achieved}"
        options = config["calibration"]
        data = (
            f"{options['source']}, {options['samples']} windows of {options['seq_len']} tokens, seed {config['seed']}"
        )
        facts["calibration"] = f"{data}; propagation {config['propagation']}"
        if "gram_precision" in config:  # where it is not the default
            facts["Gram matrices"] = f"of inputs rounded to {config['gram_precision']}"
    else:
        facts["sparsity"] = f"{record.sparsity.achieved:.5f} over all block matrices, as the base model had it"
    if record.saved is not None and (sizes := record.saved.compressed) is not None:
        facts["size"] = f"{sizes.compressed:,} bytes compressed of {sizes.dense:,} dense ({sizes.ratio:.4f})"
    skipped = left_dense(record.coverage, record.is_pruned)
    made_with = f"{versions_of(record.environment)}; config {record.config_hash}"
    return facts | skipped | {"made with": made_with}


def _accuracies(zero_shot: ZeroShotResult, is_pruned: bool) -> list[str]:
    """The table of tasks; its head tells of a limit, since the numbers are there."""
    protocol, mean = zero_shot.protocol, zero_shot.mean
    limit = f", only the first {protocol.limit} documents of each" if protocol.limit else ""
    sides = _sides(is_pruned, "accuracy")
    sides += ["flips"] if is_pruned and any(task.flips is not None for task in zero_shot.tasks.values()) else []
    lines = head([f"task (lm-eval {protocol.lm_eval}{limit})", "metric", "shots", "documents", *sides])
    for name, task in zero_shot.tasks.items():
        metric, error = task.metric, stderr_of(task.metric)
        cells = [f"{name}, version {task.version}", metric, task.shots, task.documents]
        values = [with_error(side.get(metric), side.get(error)) for side in (task.dense, task.pruned or {})]
        values.append(with_error(task.flips, None))
        lines.append(row([*cells, *values[: len(sides)]]))
    if len(zero_shot.averaged) > 1:
        means = [with_error(mean.dense, mean.dense_stderr), with_error(mean.pruned, mean.pruned_stderr)]
        means.append(with_error(mean.flips, None))
        lines.append(f"| mean of {', '.join(zero_shot.averaged)} | | | | {' | '.join(means[: len(sides)])} |")
    return lines


def _sides(is_pruned: bool, measured: str) -> list[str]:
    """Columns of what was measured; a run that prunes nothing measures one model."""
    return ["dense", "pruned"] if is_pruned else [measured]


def options_in_words(options: Mapping[str, object]) -> str:
    """A name and its options.

    Args:
        options: ``name`` and options by key.
    """
    values = ", ".join(f"{key} {value}" for key, value in options.items() if key != "name")
    return f"{options['name']} ({values})" if values else str(options["name"])


def _pattern(options: Mapping[str, object]) -> str:
    if options["keep"] is not None:
        return f"{options['keep']}:{options['of']}"
    if options["layer_ratios"] is not None:
        return f"unstructured, compared by {options['group']}, ratios given by layer"
    return f"unstructured {options['ratio']}, compared by {options['group']}, allocation {options['allocation']}"
