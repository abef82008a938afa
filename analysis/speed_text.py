"""What was measured of a model's speed, as tables of 80 columns, sentences and plain values."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from statprune.evaluation.speed_report import AGAINST, DENSE, FormSpeed, SpeedReport, Spread, Timing
from statprune.runs.wording import counted
from statprune.system.files import finite

WIDTH = 80
SCHEMA = 1
LOGITS = {"last": "the last position", "all": "all positions"}
ROUNDS_FOR_A_VERDICT = 3  # fewer tell no drift from a difference


def print_speed(report: SpeedReport, machine: Mapping[str, object]) -> None:
    """Print the machine, a table for each phase, one of memory, and what follows."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    for line in _head(report, machine):
        console.print(line, soft_wrap=line.startswith((DENSE, AGAINST)))  # a path stays whole
    for phase in report.phases:
        console.print(_phase_table(report, phase))
    console.print(_memory_table(report))
    for sentence in findings(report):
        console.print(sentence)


def to_json(report: SpeedReport, machine: Mapping[str, object]) -> str:
    """All facts: every round's seconds, the numbers made of them, the outputs' comparison, and the machine."""
    values: dict[str, object] = asdict(report)
    for form, plain in zip(report.forms, values["forms"], strict=True):  # type: ignore[call-overload]
        if form.agreement is not None:
            plain["agreement"]["is_same"] = form.agreement.is_same
        for timing, own in zip(form.timings, plain["timings"], strict=True):
            for phase in report.phases:
                tokens = report.throughput(timing, phase)
                own[f"{phase}_tokens_per_second"] = asdict(tokens) if tokens is not None else None
                own[f"{phase}_times_as_fast_as_dense"] = asdict(report.times_as_fast(timing, phase))
    return json.dumps(
        finite({"schema": SCHEMA, "machine": dict(machine), **values, "findings": findings(report)}), indent=2
    )


def findings(report: SpeedReport) -> list[str]:
    """Sentences about outputs, what could not be measured or converted, and whether anything was faster."""
    sentences = []
    for form in report.forms:
        sentences += _outputs(form)
        if form.left and form.problem is None:
            sentences.append(f"{form.name}: {_left(form)}.")
    sentences += [f"{name} is not measured here: {reason}." for name, reason in report.missing.items()]
    return [*sentences, *_verdict(report)]


def _outputs(form: FormSpeed) -> list[str]:
    """What the comparison with the dense form found, and why a form was not timed."""
    own = form.agreement
    if own is None:
        reason = f"{form.problem} ({_left(form)})" if form.left else form.problem
        return [f"{form.name} was not timed: {reason}."] if form.problem is not None else []
    if not own.is_dense_finite:
        reason = "the logits of dense weights are not finite, with NaN or infinity among them"
        return [f"{form.name} can't be compared, so that its speed is not given: {reason}; inspect the model."]
    positions = "1 position's" if own.positions == 1 else f"{own.positions} positions'"
    compared = (
        f"of {positions} logits the largest relative difference is {own.relative:.2g} (tolerance "
        f"{own.tolerance:.2g}), the largest absolute one {own.largest:.2g}, the most likely token agrees at "
        f"{own.top1:.1%}"
    )
    if own.is_same:
        return [f"{form.name} computes what dense weights do: {compared}."]
    return [f"{form.name} computes SOMETHING ELSE than dense weights, so that its speed is not given: {compared}."]


def _left(form: FormSpeed) -> str:
    """How many matrices stay dense, and why."""
    reasons = "; ".join(f"{reason} ({count})" for reason, count in form.left.items())
    matrices = form.converted + sum(form.left.values())
    count = sum(form.left.values())
    of, stay = ("1 matrix" if matrices == 1 else f"{matrices} matrices"), "stays" if count == 1 else "stay"
    return f"{count} of the blocks' {of} {stay} dense: {reasons}"


def _verdict(report: SpeedReport) -> list[str]:
    """Which sparse form was faster in every round; that none was is an answer, too."""
    timed = [form for form in report.forms if form.name not in (DENSE, AGAINST) and form.timings]
    if not timed:
        return ["Nothing faster: there is no sparse form here that could be timed."]
    if report.plan.rounds < ROUNDS_FOR_A_VERDICT:
        few = "1 round is" if report.plan.rounds == 1 else f"{report.plan.rounds} rounds are"
        return [f"{few} too few to say what is faster; give {ROUNDS_FOR_A_VERDICT} or more."]
    sentences = [
        f"{form.name} beat dense weights in every round: {phase} of batch {timing.batch_size}, {_ratio(ratio)} times."
        for form in timed
        for timing in form.timings
        for phase in report.phases
        if (ratio := report.times_as_fast(timing, phase)).lowest > 1
    ]
    return sentences or ["Nothing faster: no sparse form beat dense weights in every round, at any batch size."]


def _head(report: SpeedReport, machine: Mapping[str, object]) -> list[str]:
    plan = report.plan
    lines = [f"{form.name}: {form.path}" for form in report.forms if form.name in (DENSE, AGAINST)]
    lines.append(f"{report.dtype} on {machine['device_name']}, threads: {machine['threads']}")
    load = machine["load_average"]
    busy = f", load {load:.1f} on {machine['cores']} cores before the run" if isinstance(load, float) else ""
    lines.append(f"statprune {machine['statprune']}, torch {machine['torch']}, {machine['date']}{busy}")
    prompts, steps = counted(plan.prompt_tokens, "token"), counted(plan.new_tokens, "greedy step")
    lines.append(
        f"prompts of {prompts} ({report.prompts}), {steps}, {counted(plan.rounds, 'interleaved round')}; prefill "
        f"computes the logits of {LOGITS[report.prefill_logits]}"
    )
    return lines


def _phase_table(report: SpeedReport, phase: str) -> Table:
    title = f"{phase}, tokens/s: median of the rounds (lowest–highest)"
    table = _table(title, ("form", "batch"), ("tokens/s", "range", "times dense", "range"))
    for size in report.plan.batch_sizes:
        for form in report.forms:
            timing = next((own for own in form.timings if own.batch_size == size), None)
            table.add_row(form.name, str(size), *_cells(report, timing, phase))
    return table


def _cells(report: SpeedReport, timing: Timing | None, phase: str) -> list[str]:
    if timing is None:
        return ["not timed", "", "", ""]
    tokens, ratio = report.throughput(timing, phase), report.times_as_fast(timing, phase)
    assert tokens is not None  # of a phase that has some
    return [
        _rate(tokens.median),
        f"{_rate(tokens.lowest)}–{_rate(tokens.highest)}",
        f"{ratio.median:.2f}",
        f"{ratio.lowest:.2f}–{ratio.highest:.2f}",
    ]


def _memory_table(report: SpeedReport) -> Table:
    sizes = report.plan.batch_sizes
    table = _table("MiB; peak: weights and one pass", ("form",), ("sparse", "files", "weights", *_peaks(sizes)))
    for form in report.forms:
        peaks = {timing.batch_size: timing.peak_bytes for timing in form.timings}
        matrices = form.converted + sum(form.left.values())
        held = form.held_bytes if form.timings else None
        table.add_row(
            form.name,
            f"{form.converted}/{matrices}" if matrices else "–",
            _mebibytes(form.file_bytes),
            _mebibytes(held),
            *(_mebibytes(peaks.get(size)) for size in sizes),
        )
    return table


def _peaks(sizes: tuple[int, ...]) -> list[str]:
    return [f"peak at {size}" for size in sizes]


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.lowest:.2f}–{spread.highest:.2f})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _mebibytes(count: int | None) -> str:
    return f"{count / 2**20:,.1f}" if count is not None else "–"
