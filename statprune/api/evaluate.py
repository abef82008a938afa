"""``statprune.evaluate``: perplexity, fidelity and zero-shot accuracy of a model at hand."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from statprune.api.arguments import check_count, opened_model, read_names
from statprune.api.evaluation_result import DatasetFidelity, DatasetPerplexity, Estimate, Evaluation, TaskAccuracy
from statprune.api.progress import shown_progress
from statprune.api.tokens import check_windows, tokenizer_of, usual_length
from statprune.data.windows import Windows, evaluation_windows
from statprune.errors import ChoiceError, ConfigError, DataError, ModelError
from statprune.evaluation.accuracy import stderr_of
from statprune.evaluation.fidelity import window_fidelity
from statprune.evaluation.perplexity import window_losses, window_losses_by_block
from statprune.evaluation.task_sets import metric_problem
from statprune.evaluation.tasks import TaskOptions, load_tasks, name_problems
from statprune.model.loading import LoadedModel, check_length
from statprune.walk.discover import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def evaluate(  # noqa: PLR0913  # the front door: what can be measured, by name
    model: "LoadedModel | PreTrainedModel",
    datasets: str | Sequence[str] | Mapping[str, Windows | Tensor] = "bundled",
    tasks: str | Sequence[str] = (),
    *,
    dense: "LoadedModel | PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    seq_len: int | None = None,
    max_windows: int | None = None,
    batch_size: int = 4,
    task_options: TaskOptions | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure what a model is worth.

    Args:
        model: what ``load_model`` returns, or a transformers model in evaluation mode.
        datasets: names of texts (``"bundled"``, ``["wikitext2", "c4"]``), or windows of your own by name; ``()``: none.
        tasks: lm-eval tasks for zero-shot accuracy: names, folders of task YAMLs, the sets paper, wanda7 and so on.
        dense: the model before it was pruned: with it fidelity is measured on the datasets, too.
        tokenizer: None: the ``LoadedModel``'s.
        seq_len: tokens of a window of the named datasets; None: 512, or the model's positions where they are fewer.
        max_windows: of each named dataset, the first ones; None: all.
        batch_size: windows per forward.
        task_options: how tasks are asked; None: as lm-eval does.
        progress: show a bar on a terminal, and elsewhere a line for each batch, on standard error.

    Raises:
        ChoiceError, ConfigError: a dataset, a task or an option does not exist.
        DataError: a text can't be read, or windows are none.
        ModelError: windows do not fit the model, or ``dense`` is not its like.

    Examples:
        >>> from statprune import evaluate, load_model, prune
        >>> loaded, dense = load_model(), load_model()
        >>> _ = prune(loaded, "magnitude", 0.5)
        >>> measured = evaluate(loaded, "bundled", dense=dense, max_windows=2)
        >>> measured.perplexity["bundled"].windows
        2
        >>> measured.fidelity["bundled"].divergence.value > 0
        True
    """
    network = opened_model(model, "evaluate")
    _check_mode(network)
    check_count(batch_size, "batch_size")
    windows = _windows_by_name(model, datasets, tokenizer, seq_len, max_windows)
    reference = None if dense is None else _reference(network, dense, windows)
    names = read_names(tasks, "tasks")
    zero_shot = _Tasks(model, names, tokenizer, task_options) if names else None
    perplexities, fidelities = {}, {}
    for name, ids in windows.items():
        perplexities[name] = _perplexity(model, ids, batch_size, name, progress)
        if reference is not None:
            with shown_progress(f"fidelity on {name}", len(ids), progress) as advance:
                own = window_fidelity(reference, network, ids, batch_size, advance)
            fidelities[name] = DatasetFidelity(Estimate.of(own.divergence), Estimate.of(own.agreement), len(ids))
    accuracies = zero_shot.measured(network) if zero_shot is not None else {}
    return Evaluation(perplexities, fidelities, accuracies)


def _check_mode(network: "PreTrainedModel") -> None:
    if network.training:
        raise ModelError(
            f"{type(network).__name__} is in training mode, where dropout changes its values; call model.eval() first"
        )


def _windows_by_name(
    model: "LoadedModel | PreTrainedModel",
    datasets: object,
    tokenizer: "PreTrainedTokenizerBase | None",
    seq_len: int | None,
    max_windows: int | None,
) -> dict[str, Tensor]:
    """Checked token ids by the dataset's name."""
    network = opened_model(model, "evaluate")
    check_count(seq_len, "seq_len", 2)
    check_count(max_windows, "max_windows")
    result: dict[str, Tensor] = {}
    if isinstance(datasets, Mapping):
        if seq_len is not None or max_windows is not None:
            raise ChoiceError("seq_len and max_windows are for named datasets; cut windows of your own before")
        for name, windows in datasets.items():
            ids = windows.ids if isinstance(windows, Windows) else windows
            if not isinstance(ids, Tensor):
                raise DataError(
                    f"the windows of {name} are of the type {type(ids).__name__}; give Windows or token ids"
                )
            result[str(name)] = ids
    else:
        length = usual_length(network) if seq_len is None else seq_len
        check_length(network, length, f"seq_len={length}")
        for name in read_names(datasets, "datasets"):
            own = tokenizer_of(model, tokenizer, f"to read {name}")
            result[name] = evaluation_windows(own, name, length, max_windows).ids
    for ids in result.values():
        check_windows(network, ids)
    return result


def _reference(network: "PreTrainedModel", dense: object, windows: Mapping[str, Tensor]) -> "PreTrainedModel":
    """The dense model, once it is known that the two can be compared."""
    reference = opened_model(dense, "evaluate")
    if reference is network:
        raise ModelError(
            "dense is the model itself, which prune() has changed in place; open the dense model a second time"
        )
    if not windows:
        raise ChoiceError("dense is given, but no datasets to compare the two models on; name one")
    _check_mode(reference)
    for ids in windows.values():
        check_windows(reference, ids)
    return reference


def _perplexity(
    model: "LoadedModel | PreTrainedModel", ids: Tensor, batch_size: int, name: str, is_shown: bool
) -> DatasetPerplexity:
    network = opened_model(model, "evaluate")
    with shown_progress(f"perplexity on {name}", len(ids), is_shown) as advance:
        if isinstance(model, LoadedModel) and model.streamer is not None:
            losses = window_losses_by_block(network, find_blocks(model, ids), ids, batch_size, progress=advance)
        else:
            losses = window_losses(network, ids, batch_size, advance)
    loss = Estimate.of(losses)
    value = math.exp(loss.value) if loss.value < 700 else math.inf  # a float ends at e^709
    return DatasetPerplexity(value, loss, len(ids), ids.shape[1], len(ids) * (ids.shape[1] - 1))


class _Tasks:
    """lm-eval tasks, found and rehearsed before anything is measured.

    Args:
        model: the caller's.
        names: of the tasks.
        tokenizer: the caller's, or None.
        options: how they are asked; None: the defaults.
    """

    def __init__(
        self,
        model: "LoadedModel | PreTrainedModel",
        names: Sequence[str],
        tokenizer: "PreTrainedTokenizerBase | None",
        options: TaskOptions | None,
    ):
        if options is not None and not isinstance(options, TaskOptions):
            raise ChoiceError(f"task_options is TaskOptions(...), and this is of the type {type(options).__name__}")
        own = tokenizer_of(model, tokenizer, "to ask tasks")
        own_options = options or TaskOptions()
        metric = metric_problem(names, own_options.metric, TaskOptions.metric)
        if problems := [*name_problems(names), *([metric] if metric else [])]:
            raise ConfigError(problems)
        suite = load_tasks(names, own_options.trust_task_code)
        from statprune.evaluation.zero_shot import ZeroShot  # lm-eval takes seconds to import

        self._zero_shot = ZeroShot(suite, opened_model(model, "evaluate"), own, own_options)

    def measured(self, network: "PreTrainedModel") -> dict[str, TaskAccuracy]:
        """Ask the model."""
        result = self._zero_shot.compared(self._zero_shot.measure(network, "model's"), None)
        return {
            name: TaskAccuracy(
                metric=task.metric,
                value=task.dense.get(task.metric),
                standard_error=task.dense.get(stderr_of(task.metric)),
                documents=task.documents,
                shots=task.shots,
                version=task.version,
            )
            for name, task in result.tasks.items()
        }
