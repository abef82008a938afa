"""Whether a saved model is what its run's record says: files, zeros, N:M groups, untouched tensors, losses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from statprune.config.checks import parse_config
from statprune.config.schema import RunConfig
from statprune.core.patterns import NofM
from statprune.core.sparsity_facts import broken_groups
from statprune.data.windows import evaluation_windows
from statprune.errors import DamagedError, StatpruneError
from statprune.evaluation.inspection import Inspection, inspect_checkpoint, name_in_block
from statprune.evaluation.perplexity import window_losses
from statprune.model.checkpoint_tensors import open_checkpoint
from statprune.model.compressed import check_compressed, is_compressed, load_compressed
from statprune.model.converted import converted_models, kept_folder
from statprune.model.loading import LoadedModel, ModelSource, open_model
from statprune.model.location import locate_model
from statprune.model.saved import shards_of
from statprune.model.stored import named_few
from statprune.pruning.report import MatrixReport
from statprune.runs.checksums import damage
from statprune.runs.record import RunRecord
from statprune.runs.store import MODEL, RECORD, REPORTS, WINDOWS, damaged_files, read_record, read_reports
from statprune.system.plugin_files import use_plugin_files

# largest difference of a window's mean loss, by the precision the model is stored in [nats]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        is_right: None where it could not be checked.
        sentence: what was found.
    """

    check: str
    is_right: bool | None
    sentence: str


@dataclass(frozen=True)
class SavedRun:
    """A finished run with its saved model.

    Attributes:
        folder: of the run.
        record: of the run.
        config: of the run.
        reports: of its matrices, as blocks.jsonl has them; none where nothing was pruned.
    """

    folder: Path
    record: RunRecord
    config: RunConfig
    reports: Sequence[MatrixReport]

    @property
    def model(self) -> Path:
        """Folder of the saved model."""
        return self.folder / MODEL

    @property
    def source(self) -> str:
        """The dense model that was pruned, as an absolute path where it is a local one."""
        return self.record.paths.get("model.path", self.config.model.path)

    @property
    def by_place(self) -> Mapping[tuple[int | None, str], MatrixReport]:
        """Reports by the number of the block and the matrix's name within it."""
        return {(report.block, report.name): report for report in self.reports}


def saved_run(folder: Path) -> SavedRun:
    """The run whose folder, or whose model's folder, this is.

    Raises:
        StatpruneError: there is none, or it saved no model.
    """
    own = folder if (folder / RECORD).exists() else folder.absolute().parent
    record = read_record(own)
    if record is None:
        raise StatpruneError(f"{folder} holds no {RECORD}; give the folder of a run with save_model=true or compressed")
    if not record.is_finished:
        raise StatpruneError(f"{own} holds a run that is not finished; give its command again first")
    if not (own / MODEL).is_dir():
        raise StatpruneError(f"{own} holds no folder {MODEL}; run again with save_model=true rerun=true")
    use_plugin_files(record.config.get("plugins", []))
    try:
        reports = read_reports(own)
    except (OSError, DamagedError):  # a check tells of it, if there should be any
        reports = []
    return SavedRun(own, record, parse_config(record.config), reports)


def verify(run: SavedRun, windows: int = 2) -> Iterator[Finding]:
    """Check a saved model, the quick checks first.

    Args:
        run: to check.
        windows: whose losses are measured again, of each dataset.
    """
    yield _files(run)
    yield _shards(run)
    try:
        if is_compressed(run.model):
            files = check_compressed(run.model)
            what = f"decompressed, {'it has' if files == 1 else f'all {files} have'} the dense file's bytes"
            yield Finding("decompress", True, what)
        inspection, finding = _inspected(run)
        yield _zeros(run, inspection)
        if isinstance(run.config.pattern.value, NofM) and run.record.is_pruned:
            yield _groups(run, run.config.pattern.value)
        yield finding
        yield from _losses(run, windows)
    except StatpruneError as error:  # a shard that can't be read, and what depends on it
        yield Finding("model", False, f"{error}")


def _files(run: SavedRun) -> Finding:
    problems = damaged_files(run.folder, run.record)
    if problems:
        return Finding("record", False, f"of the files beside the record {'; '.join(problems)}")
    names = [name for name in (REPORTS, WINDOWS) if name in run.record.files]
    return Finding(
        "record", True, f"{RECORD} is whole, and so {'is' if len(names) == 1 else 'are'} {' and '.join(names)}"
    )


def _shards(run: SavedRun) -> Finding:
    expected = run.record.saved.shards if run.record.saved is not None else {}
    if not expected:
        return Finding("checksums", None, "the record has no checksums of the model's files: an older version wrote it")
    problems = damage(run.model, expected)
    if is_compressed(run.model) != (run.record.saved is not None and run.record.saved.compressed is not None):
        problems.append("the model was saved in another form")
    more = [path.name for path in shards_of(run.model) if path.name not in expected]
    problems += [f"{name} is not of the run" for name in more]
    if problems:
        return Finding("checksums", False, "; ".join(problems))
    return Finding(
        "checksums", True, f"{len(expected)} {'file' if len(expected) == 1 else 'files'} of the model are as written"
    )


def _inspected(run: SavedRun) -> tuple[Inspection, Finding]:
    """The model's tensors, and whether those that pruning does not touch are the source's."""
    try:
        source = _comparable(run)
    except StatpruneError as error:
        return inspect_checkpoint(str(run.model)), Finding("untouched", None, f"nothing to compare with: {error}")
    found = inspect_checkpoint(str(run.model), source)
    pruned = set(run.by_place)
    elsewhere = [own.name for own in found.tensors if own.is_changed and name_in_block(own.name) not in pruned]
    if elsewhere:
        few = named_few(elsewhere)
        return found, Finding("untouched", False, f"{len(elsewhere)} tensors that were not pruned differ: {few}")
    if found.not_compared or found.missing:
        odd = [own.name for own in found.not_compared] + list(found.missing)
        return found, Finding("untouched", None, f"{len(odd)} tensors could not be compared: {named_few(odd)}")
    count = sum(name_in_block(own.name) not in pruned for own in found.tensors)
    return found, Finding("untouched", True, f"{count} tensors that were not pruned have the values of {source}")


def _comparable(run: SavedRun) -> str:
    """The dense checkpoint with the tensors as they were opened: of a .gguf file the folder that it was converted to.

    Raises:
        StatpruneError: there is none.
    """
    if not run.source.endswith(".gguf"):
        open_checkpoint(run.source)
        return run.source
    folder = kept_folder(Path(locate_model(run.source)), converted_models(run.record.paths.get("cache")))
    if folder is not None:
        return str(folder)
    raise StatpruneError(f"{run.source} is not kept converted; a run with the same cache converts it")


def _zeros(run: SavedRun, inspection: Inspection) -> Finding:
    """Zeros of every pruned matrix, and of all matrices together, against the record."""
    if not run.record.is_pruned:
        return _overall(run, inspection, [])
    counted = {name_in_block(own.name): own.facts.zeros for own in inspection.tensors if own.facts is not None}
    wanted = {place: round(report.sparsity * report.weights) for place, report in run.by_place.items()}
    wrong = [
        f"{name} of block {block} has {counted[block, name]:,} zeros and not {zeros:,}"
        for (block, name), zeros in wanted.items()
        if (block, name) in counted and counted[block, name] != zeros
    ]
    return _overall(run, inspection, wrong, len(wanted.keys() & counted.keys()), len(wanted))


def _overall(run: SavedRun, inspection: Inspection, wrong: list[str], matched: int = 0, reported: int = 0) -> Finding:
    achieved = run.record.sparsity.achieved
    if wrong:
        return Finding(
            "zeros", False, f"in {len(wrong)} matrices the zeros are not the record's: {named_few(wrong, 2)}"
        )
    if abs(inspection.sparsity - achieved) > 1e-9 and matched == reported:
        both = f"{inspection.sparsity:.7f} and not {achieved:.7f}"
        return Finding("zeros", False, f"the sparsity of all block matrices is {both}")
    if matched < reported:
        stored = f"{reported - matched} of {reported} matrices are stored in another form than they were pruned in"
        return Finding("zeros", None, f"{stored}; the others have the record's zeros")
    each = f"in each of {matched} pruned matrices, " if matched else ""
    return Finding("zeros", True, f"{each}sparsity {achieved:.5f} over all block matrices, as recorded")


def _groups(run: SavedRun, pattern: NofM) -> Finding:
    """Every group of every pruned matrix; of matrices that are stored transposed, along their columns."""
    checkpoint, places = open_checkpoint(str(run.model)), run.by_place
    wrong, groups = [], 0
    for name, read in checkpoint.readers.items():
        if (report := places.get(name_in_block(name))) is None:
            continue
        weight = read()
        weight = weight if tuple(weight.shape) == (report.out_features, report.in_features) else weight.T
        broken = broken_groups(weight, pattern.keep, pattern.of)
        groups += weight.numel() // pattern.of
        wrong += [f"{broken:,} in {name}"] if broken else []
    shown = f"{pattern.keep}:{pattern.of}"
    if wrong:
        return Finding("groups", False, f"groups that are not {shown}: {named_few(wrong)}")
    if not groups:
        why = "no matrix is stored in the form it was pruned in" if run.reports else f"{REPORTS} can't be read"
        return Finding("groups", None, why)
    return Finding("groups", True, f"{groups:,} groups are {shown}")


def _losses(run: SavedRun, count: int) -> Iterator[Finding]:
    """The first windows' losses, measured again with the saved model."""
    import pandas as pd

    datasets = run.config.evaluation.datasets
    if not datasets or not (run.folder / WINDOWS).exists():
        yield Finding("losses", None, "the run measured no perplexity")
        return
    recorded = pd.read_parquet(run.folder / WINDOWS)
    loaded = _opened(run)
    for dataset in datasets:
        before = torch.tensor(recorded.loc[recorded["dataset"] == dataset, "pruned_loss"].to_numpy()[:count])
        try:
            now = _measured(run, loaded, dataset, count)
        except StatpruneError as error:
            yield Finding("losses", None, f"{dataset} can't be read again: {error}")
            continue
        yield _compared(dataset, before, now, next(loaded.model.parameters()).dtype)


def _opened(run: SavedRun) -> LoadedModel:
    dtype = run.config.model.source.dtype
    if is_compressed(run.model):
        return load_compressed(run.model, dtype=dtype)
    return open_model(ModelSource(str(run.model), dtype))


def _measured(run: SavedRun, loaded: LoadedModel, dataset: str, count: int) -> Tensor:
    options = run.config.evaluation
    path = run.record.paths.get("evaluation.path", options.path) if options.path_of(dataset) else None
    where = path, options.field_of(dataset)
    windows = evaluation_windows(loaded.tokenizer, dataset, options.seq_len, options.max_windows, *where, options.bos)
    return window_losses(loaded.model, windows.ids[:count], options.batch_size)


def _compared(dataset: str, before: Tensor, now: Tensor, dtype: torch.dtype) -> Finding:
    if before.shape != now.shape:
        return Finding("losses", False, f"{dataset} has {len(now)} windows now and had {len(before)}")
    apart = (now - before).abs().max().item()
    what = f"of {len(now)} windows of {dataset} the losses are at most {apart:.2g} nats from the recorded ones"
    return Finding("losses", bool(apart <= TOLERANCE.get(dtype, 3e-2)), what)
