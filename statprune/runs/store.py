"""The files of a run's folder: which there are, and how they are read and written.

The record comes last, so that everything it stands beside is whole. Nothing is written once another process has taken
the folder over.
"""

import json
import math
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType

import torch
from omegaconf import OmegaConf
from torch import Tensor
from yaml import YAMLError

from statprune.data.windows import Windows
from statprune.errors import DamagedError, StatpruneError, first_line
from statprune.evaluation.accuracy import Answers, DocumentAnswer, ZeroShotResult, finite_or_none
from statprune.evaluation.fidelity import WindowFidelity, WindowResults
from statprune.model.base_card import base_card
from statprune.model.location import RUN_RECORD, SAVED_MODEL
from statprune.pruning.report import MatrixReport
from statprune.runs import own_model
from statprune.runs.checksums import checksums, damage, sealed, unsealed
from statprune.runs.columns import DocumentRow, WindowRow
from statprune.runs.migrations import migrated
from statprune.runs.model_card import CardSources, model_card
from statprune.runs.record import RunRecord
from statprune.system.files import finite, replacing, write_json
from statprune.system.lock import check_ours, is_lost

RECORD, REPORTS, WINDOWS, DOCUMENTS = RUN_RECORD, "blocks.jsonl", "windows.parquet", "documents.parquet"
MASKS, MODEL = "masks.npz", SAVED_MODEL
UNSAVED = ".pruned"  # the pruned model, or its pruned blocks, where it is not to be saved
DRAFT = ".card"  # of the model's card
CHECKPOINT = ".checkpoint"  # folder of pruned blocks, until the run is finished
# what a killed process leaves: half-written files, hidden states and converted checkpoints
LEFTOVERS = (
    *(
        ".result.json.*",
        "..saves-model.*",
        ".windows.parquet.*",
        ".documents.parquet.*",
        ".blocks.jsonl.*",
        ".masks.npz.*",
        DRAFT,
        ".now.*",
        "tmp*.hidden",
        ".converted-*",
    ),
    *(f"{model}/.{kind}-*.safetensors" for model in (UNSAVED, MODEL) for kind in ("fused", "block")),
)


def read_record(folder: Path) -> RunRecord | None:
    """The folder's record, or None.

    Raises:
        StatpruneError: it is damaged, or of an unknown version.
    """
    path = folder / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        migrated(values)  # an unknown version is named as such: its checksum may be another
        return RunRecord.from_json(unsealed(values, is_required=bool(values.get("files"))))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, StatpruneError) as error:
        raise DamagedError(f"{path} can't be read ({error}); delete it, or give rerun=true to replace it") from error


def claimed_hash(folder: Path) -> str | None:
    """The configuration's hash in a record that may be damaged; None where nobody can tell."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = values.get("config_hash") if isinstance(values, dict) else None
    return found if isinstance(found, str) else None


def write_record(folder: Path, record: RunRecord) -> RunRecord:
    """Write the record atomically, with the checksums of the files beside it, and of the model that it waits with.

    Returns:
        The record as it was written.
    """
    names = [REPORTS, WINDOWS, DOCUMENTS]
    if record.pending is not None and record.pending.model is not None:
        model = folder / record.pending.model
        # files with a dot are those of a model whose blocks are on disk, which go when it is closed
        names += sorted(f"{model.name}/{path.name}" for path in model.glob("*") if not path.name.startswith("."))
    check_ours(folder)
    written = replace(record, files=checksums(folder, names))
    write_json(folder / RECORD, sealed(written.to_json()))
    return written


def amend_record(folder: Path, record: RunRecord) -> None:
    """Replace the record of a finished run; the checksums of the files beside it stay as they were."""
    check_ours(folder)
    write_json(folder / RECORD, sealed(record.to_json()))


def damaged_files(folder: Path, record: RunRecord) -> list[str]:
    """What is wrong with the files that a record stands beside, half a sentence for each.

    A pending record needs no documents, which are measured again; of its model `damaged_model` tells.
    """
    wanted = (REPORTS, WINDOWS) if record.pending is not None else (REPORTS, WINDOWS, DOCUMENTS)
    problems = damage(folder, {name: value for name, value in record.files.items() if name in wanted})
    if REPORTS not in record.files and (folder / REPORTS).exists():
        try:
            read_reports(folder)
        except DamagedError as error:
            problems.append(str(error))
    return problems


def damaged_model(folder: Path, record: RunRecord) -> list[str]:
    """What is wrong with the pruned model that a pending record waits with, half a sentence for each."""
    model = record.pending.model if record.pending is not None else None
    return damage(folder, {name: value for name, value in record.files.items() if name.startswith(f"{model}/")})


def finish_record(folder: Path, record: RunRecord, is_saved: bool) -> RunRecord:
    """Write the record of a finished run, and first the card of its model if that is saved; returns it as written."""
    if is_saved:
        try:
            reports = read_reports(folder)
        except (FileNotFoundError, DamagedError):  # nothing was pruned, or the record's checksums will tell
            reports = []
        options = record.config["model"]
        sources = CardSources(typed_command(folder), reports, base_card(options["path"], options["revision"]))
        write_card(folder, record, model_card(record, sources))
    return write_record(folder, record)


def write_card(folder: Path, record: RunRecord, text: str) -> None:
    """Write the card of a run's model, and list the model's files with it.

    Args:
        folder: of the run.
        record: of the run.
        text: of the card.
    """
    with _drafted(folder) as draft:  # half a card in the model's folder would be taken for a user's file
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder / MODEL / own_model.CARD)
    own_model.complete(folder, MODEL, record.saved.shards if record.saved is not None else {})


def typed_command(folder: Path) -> str | None:
    """The command that a run began with, without Hydra's own part; None where it was not started by one."""
    try:
        overrides = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError, YAMLError):
        return None
    return shlex.join(["statprune", *map(str, overrides)]) if isinstance(overrides, list) else None


@contextmanager
def _drafted(folder: Path) -> Iterator[Path]:
    draft = folder / DRAFT
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def clear_reports(folder: Path) -> None:
    """Begin a new file of reports."""
    check_ours(folder)
    (folder / REPORTS).write_text("", encoding="utf-8")


def append_reports(folder: Path, reports: Iterable[MatrixReport]) -> None:
    """Add the reports of pruned matrices, a line for each."""
    check_ours(folder)
    with (folder / REPORTS).open("a", encoding="utf-8") as file:
        file.writelines(map(_line, reports))


def write_reports(folder: Path, reports: Iterable[MatrixReport]) -> None:
    """Write the reports of all matrices anew, where they could not be added one by one."""
    check_ours(folder)
    with replacing(folder / REPORTS) as temporary:
        temporary.write_text("".join(map(_line, reports)), encoding="utf-8")


def read_reports(folder: Path) -> list[MatrixReport]:
    """The reports of the matrices that a run pruned.

    Raises:
        FileNotFoundError: it pruned none.
        DamagedError: they can't be read, in half a sentence.
    """
    try:
        lines = (folder / REPORTS).read_text(encoding="utf-8").splitlines()
        return [MatrixReport.from_json(json.loads(line)) for line in lines]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{REPORTS} can't be read: {first_line(error)}") from error


def _line(report: MatrixReport) -> str:
    return json.dumps(finite(report.to_json()), allow_nan=False) + "\n"


def write_windows(
    folder: Path,
    evaluation: Mapping[str, Windows],
    dense: Mapping[str, Tensor],
    pruned: WindowResults | None = None,
    others: Mapping[str, WindowResults] = MappingProxyType({}),
) -> None:
    """Write a row per evaluation window: its mean loss in nats, its predicted tokens, and its fidelity if known.

    Args:
        folder: of the run.
        evaluation: windows by dataset.
        dense: the dense model's losses by dataset.
        pruned: of the pruned model; NaN is written for what is absent; None: nothing is known yet.
        others: of quantised models, by how the names of their columns begin.
    """
    import pandas as pd  # slow to import, and not needed to look for finished runs

    models = {"pruned_": pruned or WindowResults({}, None)} | {f"{name}_": own for name, own in others.items()}
    frames = []
    for source, losses in dense.items():
        columns = {
            "dataset": source,
            "window": range(len(losses)),
            "tokens": evaluation[source].ids.shape[1] - 1,
            "dense_loss": losses,
        }
        for name, own in models.items():
            missing = torch.full_like(losses, torch.nan)
            columns[f"{name}loss"] = own.losses.get(source, missing)
            if own.fidelity is not None:
                fidelity = own.fidelity.get(source, WindowFidelity(missing, missing))
                prefix = "" if own is pruned else name  # older runs have these columns without a name
                columns |= {f"{prefix}divergence": fidelity.divergence, f"{prefix}agreement": fidelity.agreement}
        frames.append(pd.DataFrame(columns))
    empty = pd.DataFrame(columns=[item.name for item in fields(WindowRow)[:5]])
    check_ours(folder)
    with replacing(folder / WINDOWS) as file:
        (pd.concat(frames) if frames else empty).to_parquet(file)


def write_documents(folder: Path, dense: Answers, pruned: Answers | None) -> None:
    """Write a row per task, document and metric, dense and pruned (NaN while unknown), so that runs can be paired."""
    import pandas as pd  # slow to import, and not needed to look for finished runs

    columns = [item.name for item in fields(DocumentRow)[:4]]
    table = pd.DataFrame(map(vars, dense.documents), columns=[*columns, "value"]).rename(columns={"value": "dense"})
    if pruned is None:
        table["pruned"] = math.nan
    else:
        own = pd.DataFrame(map(vars, pruned.documents), columns=[*columns, "value"])
        table = table.merge(own.rename(columns={"value": "pruned"}), on=columns, how="outer")
    check_ours(folder)
    with replacing(folder / DOCUMENTS) as file:
        table.to_parquet(file)


def read_dense_answers(folder: Path, result: ZeroShotResult) -> Answers:
    """What a record's zero-shot part and the folder's documents tell of the dense model.

    Raises:
        OSError, ValueError or KeyError: the documents can't be read.
    """
    import pandas as pd  # slow to import, and not needed to look for finished runs

    rows = pd.read_parquet(folder / DOCUMENTS)[["task", "document", "document_hash", "metric", "dense"]]
    documents = [
        DocumentAnswer(task, document, document_hash, metric, finite_or_none(value))
        for task, document, document_hash, metric, value in rows.to_numpy().tolist()
    ]
    return Answers(result.dense_metrics, documents, result.protocol.truncated_requests)


def can_resume(record: RunRecord | None, folder: Path) -> bool:
    """Whether a run's zero-shot evaluation did not end, and its pruned model is there."""
    name = record.pending.model if record is not None and record.pending is not None else None
    return name is not None and (folder / name / "config.json").exists()


def discard_unsaved(folder: Path) -> None:
    """Remove a pruned model that was not to be saved, unless its evaluation has to go on."""
    if is_lost(folder):  # it is another process's
        return
    try:
        record = read_record(folder)
    except StatpruneError:  # damaged: whoever runs it again decides
        return
    if not can_resume(record, folder):
        own_model.remove(folder, UNSAVED, record)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left in a run's folder."""
    for path in leftovers(folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """What a killed process left in a run's folder, besides a pruned model."""
    return [path for pattern in LEFTOVERS for path in folder.glob(pattern)]


def discard_kept_model(folder: Path) -> None:
    """Remove the pruned model that a pending record waits with, where it was not to be saved: it is pruned again."""
    try:
        record = read_record(folder)
    except StatpruneError:  # damaged
        return
    if record is not None and record.pending is not None and record.pending.model == UNSAVED:
        own_model.remove(folder, UNSAVED, record)
