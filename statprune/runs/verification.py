"""Whether a saved model is what its run's record says: files, card, zeros, N:M groups, untouched tensors, losses."""

from collections.abc import Iterator

import torch
from torch import Tensor

from statprune.data.windows import evaluation_windows
from statprune.errors import StatpruneError, first_line
from statprune.evaluation.perplexity import window_losses
from statprune.model.compressed import check_compressed, is_compressed, load_compressed
from statprune.model.loading import LoadedModel, ModelSource, open_model
from statprune.runs.file_checks import file_findings
from statprune.runs.saved_run import Finding, SavedRun
from statprune.runs.store import WINDOWS
from statprune.runs.weight_checks import weight_findings
from statprune.runs.wording import counted

# largest difference of a window's mean loss, by the precision the model is stored in [nats]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


def verify(run: SavedRun, windows: int = 2, trusts_code: bool = False) -> Iterator[Finding]:
    """Check a saved model, the quick checks first.

    Args:
        run: to check.
        windows: whose losses are measured again, of each dataset.
        trusts_code: run code that comes with the model.
    """
    yield from file_findings(run)
    try:
        if is_compressed(run.model):
            files = check_compressed(run.model)
            what = f"decompressed, {'it has' if files == 1 else f'all {files} have'} the dense file's bytes"
            yield Finding("decompress", True, what)
        loaded = _opened(run, trusts_code)
        yield from weight_findings(run, loaded)
        yield from _losses(run, loaded, windows)
    except _OwnCodeError:
        what = "it has code of its own, which is run only with --trust-remote-code; its weights were not looked at"
        yield Finding("model", None, what)
    except StatpruneError as error:  # a shard that can't be read, and what depends on it
        yield Finding("model", False, f"{error}")


class _OwnCodeError(StatpruneError):
    """The model can't be opened without code of its own: nothing tells that it is wrong."""


def _opened(run: SavedRun, trusts_code: bool) -> LoadedModel:
    dtype = run.config.model.source.dtype
    try:
        if is_compressed(run.model):
            return load_compressed(run.model, dtype=dtype, trust_remote_code=trusts_code)
        return open_model(ModelSource(str(run.model), dtype, trust_remote_code=trusts_code))
    except StatpruneError as error:
        if run.config.model.trust_remote_code and not trusts_code:
            raise _OwnCodeError from error
        raise


def _losses(run: SavedRun, loaded: LoadedModel, count: int) -> Iterator[Finding]:
    """The first windows' losses, measured again with the saved model."""
    datasets = run.config.evaluation.datasets
    if not datasets:
        yield Finding("losses", None, "the run measured no perplexity")
        return
    for dataset in datasets:
        try:
            before = _recorded(run, dataset)[:count]
            now = _measured(run, loaded, dataset, count)
        except StatpruneError as error:
            yield Finding("losses", None, f"{dataset} can't be compared: {error}")
            continue
        yield _compared(dataset, before, now, next(loaded.model.parameters()).dtype)


def _recorded(run: SavedRun, dataset: str) -> Tensor:
    """The pruned model's window losses as the run wrote them.

    Raises:
        StatpruneError: they can't be read.
    """
    import pandas as pd

    path = run.folder / WINDOWS
    if not path.exists():
        raise StatpruneError(f"{WINDOWS} is missing")
    try:
        rows = pd.read_parquet(path)
        return torch.tensor(rows.loc[rows["dataset"] == dataset, "pruned_loss"].to_numpy())
    except Exception as error:  # a file that is cut off ends in almost any error type
        raise StatpruneError(f"{WINDOWS} can't be read ({type(error).__name__}: {first_line(error)})") from error


def _measured(run: SavedRun, loaded: LoadedModel, dataset: str, count: int) -> Tensor:
    options = run.config.evaluation
    path = run.record.paths.get("evaluation.path", options.path) if options.path_of(dataset) else None
    where = path, options.field_of(dataset)
    windows = evaluation_windows(loaded.tokenizer, dataset, options.seq_len, options.max_windows, *where, options.bos)
    return window_losses(loaded.model, windows.ids[:count], options.batch_size)


def _compared(dataset: str, before: Tensor, now: Tensor, dtype: torch.dtype) -> Finding:
    if before.shape != now.shape:
        return Finding("losses", False, f"{dataset} has {counted(len(now), 'window')} now and had {len(before)}")
    apart = (now - before).abs().max().item()
    what = f"of {counted(len(now), 'window')} of {dataset} the losses are at most {apart:.2g} nats from the recorded"
    return Finding("losses", bool(apart <= TOLERANCE.get(dtype, 3e-2)), f"{what} ones")
