"""``statprune.prune``: the loop over the blocks for people who have a model at hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from statprune.api.arguments import (
    check_count,
    check_expressions,
    opened_model,
    out_of_range,
    read_allocation,
    read_compensation,
    read_method,
    read_pattern,
    read_refinement,
)
from statprune.api.progress import Advance, shown_progress
from statprune.api.tokens import GivenWindows, read_windows
from statprune.core.compensation import Compensation
from statprune.core.gram import GramPrecision
from statprune.core.methods import Method
from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement
from statprune.core.score import Score
from statprune.model.loading import LoadedModel
from statprune.pruning.allocation import Allocation
from statprune.pruning.loop import prune as prune_blocks
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import OnBlock, Propagation, PruneResult, PruneRuntime, PruneSpec
from statprune.walk.discover import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prune(  # noqa: PLR0913  # the front door: what a run can be asked for, by name
    model: "LoadedModel | PreTrainedModel",
    method: str | Method | Score = "cvr",
    pattern: float | str | Pattern = 0.5,
    *,
    windows: GivenWindows | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    refinement: str | Refinement | None = None,
    compensation: str | Compensation | None = None,
    allocation: str | Allocation | None = None,
    propagation: str | Propagation = Propagation.pruned,
    exclude: Sequence[str] = (),
    batch_size: int | None = None,
    seed: int = 0,
    gram_precision: str | GramPrecision = GramPrecision.float32,
    progress: bool = False,
    on_block: OnBlock | None = None,
) -> PruneResult:
    """Prune a model in place. The paper's method is ``prune(model, "cvr", 0.5, compensation="energy")``.

    Args:
        model: what ``load_model`` returns, or a transformers model in evaluation mode.
        method: name, method (``SparseGPT(damping=0.1)``, ``get_method("cvr", alpha=1.0)``) or score.
        pattern: fraction to remove (``0.5``, ``"50%"``), N:M (``"2:4"`` keeps 2 of every 4 inputs), or a pattern.
        windows: token ids (windows, seq_len), ``Windows`` or texts; None: 24 windows of 512 of the bundled text.
        tokenizer: for texts; None: the ``LoadedModel``'s.
        refinement: chooses a better mask after the method: name, object or None.
        compensation: changes the kept weights: name, object or None; none comes with a method, as on the command line.
        allocation: spreads a ratio over the matrices: name, object or None, for the same ratio everywhere.
        propagation: which inputs matrices see: pruned, sequential or dense.
        exclude: regular expressions; matrices whose full name one of them is found in stay dense.
        batch_size: windows that go through a block together; None: as many as keep the device busy.
        seed: of the bundled windows, and of the rows that output errors are measured on.
        gram_precision: in what float32 inputs are multiplied for Gram matrices: float32 or tf32.
        progress: show a bar on a terminal, elsewhere a line for each block, on standard error.
        on_block: called after each block with its number, how many there are, and its matrices' reports.

    Raises:
        ChoiceError, ConfigError: a name or an option does not exist, or a value is of the wrong type or out of range.
        DataError, ModelError: windows, pattern and model do not fit; nothing was changed. Or a matrix can't be solved:
            the blocks before it are pruned.

    Examples:
        >>> from statprune import SparseGPT, load_model, prune
        >>> result = prune(load_model(), "wanda", 0.5)
        >>> round(result.sparsity, 2), result.coverage.skipped, len(result.to_frame()) == len(result.matrices)
        (0.5, 0, True)
        >>> prune(load_model(), SparseGPT(damping=0.1), "2:4", windows=["A text.", "And another."]).calibration.samples
        1
    """
    opened_model(model, "prune")
    check_count(batch_size, "batch_size")
    check_count(seed, "seed", 0)
    spec = _spec(method, pattern, refinement, compensation, allocation, propagation, gram_precision)
    given = read_windows(model, windows, tokenizer, seed)
    blocks = find_blocks(model, given.ids, check_expressions(exclude, "exclude"))
    with shown_progress("pruning blocks", len(blocks), progress) as advance:
        runtime = PruneRuntime(batch_size, on_block=_reporter(advance, on_block))
        result = prune_blocks(model, given.ids, replace(spec, seed=seed), runtime, blocks)
    return replace(result, calibration=replace(result.calibration, origin=given.origin))


def _spec(
    method: object,
    pattern: object,
    refinement: object,
    compensation: object,
    allocation: object,
    propagation: str | Propagation,
    gram_precision: str | GramPrecision,
) -> PruneSpec:
    """What is asked for, once each part of it is known to be right."""
    chosen = read_method(method)
    with out_of_range():
        return PruneSpec(
            method=chosen,
            pattern=read_pattern(pattern, chosen),
            compensation=read_compensation(compensation),
            allocation=read_allocation(allocation),
            propagation=propagation,  # type: ignore[arg-type]  # its value will do
            refinement=read_refinement(refinement),
            gram_precision=gram_precision,  # type: ignore[arg-type]
        )


def _reporter(advance: Advance, on_block: OnBlock | None) -> OnBlock:
    """What is called after each block: the progress, and the caller's own function."""

    def report(index: int, count: int, reports: Sequence[MatrixReport]) -> None:
        errors = [own.relative_output_error for own in reports if own.relative_output_error is not None]
        note = f", mean relative output error {sum(errors) / len(errors):.4f}" if errors else ""
        advance(index + 1, note)
        if on_block is not None:
            on_block(index, count, reports)

    return report
