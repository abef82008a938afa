"""What was found in a checkpoint, as tables of 80 columns and as plain values."""

import json
from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from statprune.core.sparsity_facts import shared_patterns
from statprune.evaluation.inspection import InspectedTensor, Inspection, by_kind, share_of_zeros
from statprune.model.stored import named_few
from statprune.system.files import finite

WIDTH = 80
BY_CHANCE = 0.1  # a pattern so much denser than a matrix says nothing of how it was pruned
FEW_BLOCKS = 40  # more are told by their range


def print_inspection(inspection: Inspection) -> None:
    """Print what the checkpoint holds, its zeros by kind and by block, and what is odd about it."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    for line in _head(inspection):
        console.print(line)
    if inspection.matrices:
        console.print(_kinds(inspection))
        console.print(_blocks(inspection))
    for sentence in findings(inspection):
        console.print(sentence)


def to_json(inspection: Inspection) -> str:
    """Everything that was counted, tensor by tensor, with the sums."""
    values: dict[str, object] = asdict(inspection)
    for own, plain in zip(inspection.tensors, values["tensors"], strict=True):  # type: ignore[call-overload]
        if own.facts is not None:
            for direction in ("along_rows", "along_columns"):
                plain["facts"][direction] = [str(pattern) for pattern in getattr(own.facts, direction)]
    values["sparsity"] = inspection.sparsity
    values["card_is_true"] = inspection.is_card_true
    values["findings"] = findings(inspection)
    return json.dumps(finite(values), indent=2)


def findings(inspection: Inspection) -> list[str]:
    """Sentences about ties, the card, and tensors that are not what one would expect."""
    sentences = []
    if inspection.card_sparsity is not None:
        verdict = "and so it is" if inspection.is_card_true else f"but {inspection.sparsity:.5f} was counted"
        sentences.append(f"The model card says sparsity {inspection.card_sparsity:.5f}, {verdict}.")
    sentences += _ties(inspection)
    if broken := [own.name for own in inspection.tensors if own.not_finite]:
        sentences.append(f"{_number(broken, 'tensor holds', 'tensors hold')} NaN or infinity: {named_few(broken)}.")
    sentences += _not_counted(inspection)
    if inspection.against is not None:
        sentences += _comparison(inspection)
    return sentences


def _head(inspection: Inspection) -> list[str]:
    dtypes = Counter(own.dtype for own in inspection.tensors)
    named = ", ".join(f"{count} {name}" for name, count in dtypes.most_common())
    lines = [
        f"{inspection.path}: {_number(inspection.tensors, 'tensor')} ({named}), "
        f"{inspection.bytes / 2**30:.2f} GiB in files",
    ]
    if inspection.against is not None:
        lines.append(f"against {inspection.against}")
    if inspection.matrices:
        blocks = {own.block for own in inspection.matrices}
        weights = sum(own.facts.weights for own in inspection.matrices if own.facts is not None)
        lines.append(
            f"sparsity {inspection.sparsity:.5f} of {weights:,} weights in "
            f"{_number(inspection.matrices, 'matrix', 'matrices')} of {_number(blocks, 'decoder block')}"
        )
    else:
        lines.append("no matrices in numbered blocks were found")
    return lines


def _kinds(inspection: Inspection) -> Table:
    columns = ("#", "weights", "sparsity", "range", "N:M", "empty", *_change_columns(inspection))
    table = _table("by kind; empty: rows and columns that are all zero", "kind", columns)
    for kind, members in by_kind(inspection.matrices).items():
        facts = [own.facts for own in members if own.facts is not None]
        weights = sum(own.weights for own in facts)
        empty = sum(own.zero_rows for own in facts), sum(own.zero_columns for own in facts)
        cells = [str(len(members)), _short(weights), *_sparsity(members), _patterns(members)]
        table.add_row(kind, *cells, f"{empty[0]}, {empty[1]}", *_changes(inspection, members))
    return table


def _blocks(inspection: Inspection) -> Table:
    table = _table("by block", "block", ("#", "sparsity", "range", "N:M", *_change_columns(inspection)))
    numbers = sorted({own.block for own in inspection.matrices if own.block is not None})
    step = -(-len(numbers) // FEW_BLOCKS)
    for first in range(0, len(numbers), step):
        part = numbers[first : first + step]
        members = [own for own in inspection.matrices if own.block in part]
        name = str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}"
        cells = [str(len(members)), *_sparsity(members), _patterns(members), *_changes(inspection, members)]
        table.add_row(name, *cells)
    return table


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _short(count: int) -> str:
    """A large number in three digits: 106M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _sparsity(members: Sequence[InspectedTensor]) -> list[str]:
    """Of all weights, and the range over matrices where they differ."""
    facts = [own.facts for own in members if own.facts is not None]
    each = [own.zeros / own.weights for own in facts]
    low, high = f"{min(each):.3f}", f"{max(each):.3f}"
    return [f"{share_of_zeros(members):.5f}", "" if low == high else f"{low} to {high}"]


def _patterns(members: Sequence[InspectedTensor]) -> str:
    """Those that all of some matrices hold, and not by chance: hardly denser than what is left of the densest one."""
    facts = [own.facts for own in members if own.facts is not None]
    densest = {
        "along_rows": max(own.density_of_rows for own in facts),
        "along_columns": max(own.density_of_columns for own in facts),
    }
    rows, columns = (
        [str(own) for own in shared_patterns(facts, side) if own.keep / own.of <= density + BY_CHANCE]
        for side, density in densest.items()
    )
    return ", ".join([*rows, *(f"{own} down" for own in columns)]) or "none"


def _change_columns(inspection: Inspection) -> tuple[str, ...]:
    return ("updated", "change") if inspection.against is not None else ()


def _changes(inspection: Inspection, members: Sequence[InspectedTensor]) -> list[str]:
    """Share of the kept weights that have another value, and the mean relative change of the matrices.

    A dash where no matrix could be compared.
    """
    if inspection.against is None:
        return []
    changes = [own.change for own in members if own.change is not None]
    kept = sum(own.kept for own in changes)
    relative = [own.relative_change for own in changes if own.relative_change is not None]
    updated = f"{sum(own.updated for own in changes) / kept:.3f}" if kept else "–"
    return [updated, f"{sum(relative) / len(relative):.4f}" if relative else "–"]


def _not_counted(inspection: Inspection) -> list[str]:
    """What is in the folder, and not in the tables."""
    sentences = []
    if coded := inspection.coded_matrices:
        kinds = ", ".join(dict.fromkeys(own.dtype for own in coded))
        which = _number(coded, "matrix of a block is", "matrices of blocks are")
        sentences.append(f"{which} stored as {kinds}, and not counted: {named_few([own.name for own in coded])}.")
    if unread := inspection.unread:
        which = _number(unread, "file of tensors in the folder is", "files of tensors in the folder are")
        sentences.append(f"{which} no part of the checkpoint, and not looked at: {named_few([*unread])}.")
    return sentences


def _ties(inspection: Inspection) -> list[str]:
    twins = [own for own in inspection.tensors if own.same_as is not None]
    sentences = [f"{own.name} has the same values as {own.same_as}." for own in twins[:3]]
    if len(twins) > 3:
        more = _number(twins[3:], "more matrix has", "more matrices have")
        sentences.append(f"{more} the same values as another one.")
    if inspection.says_tied and not any(own.kind.endswith("lm_head") for own in inspection.tensors):
        sentences.append("The head is tied to the embeddings, as config.json says: it is stored once.")
    return sentences


def _comparison(inspection: Inspection) -> list[str]:
    elsewhere = [own.name for own in inspection.changed_elsewhere]
    sentences = [
        f"Outside of blocks' matrices {_counted(len(elsewhere), 'tensor')} other than there: {named_few(elsewhere)}."
        if elsewhere
        else "Outside of blocks' matrices nothing that both have has changed."
    ]
    changes = [own.change for own in inspection.matrices if own.change is not None]
    refilled = sum(own.refilled for own in changes)
    if refilled:
        sentences.append(f"{_counted(refilled, 'weight')} zero in the dense model, and not here.")
    if lacking := inspection.not_compared:
        named = [f"{own.name} {own.problem}" for own in lacking]
        sentences.append(f"{_number(lacking, 'tensor')} could not be compared: {named_few(named, 2)}.")
    if inspection.missing:
        only = _counted(len(inspection.missing), "tensor")
        sentences.append(f"{only} in the dense model alone: {named_few([*inspection.missing])}.")
    return sentences


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what} is" if count == 1 else f"{count:,} {what}s are"


def _number(items: Sized, one: str, several: str | None = None) -> str:
    """How many there are: 1 tensor, 2 tensors."""
    return f"{len(items):,} {one if len(items) == 1 else several or f'{one}s'}"
