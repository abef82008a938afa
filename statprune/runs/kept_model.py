"""The saved model in its place: as it was written, or compressed, with no dense copy beside it."""

from dataclasses import replace
from pathlib import Path

from statprune.errors import ModelError, StatpruneError, first_line
from statprune.model.compressed import write_compressed
from statprune.model.foreign import COMPRESSED
from statprune.model.saved import shards_of
from statprune.runs import own_model
from statprune.runs.context import RunContext
from statprune.runs.record import RunRecord
from statprune.runs.store import MODEL, UNSAVED
from statprune.system.disk import disk_problem
from statprune.system.files import sha256_of
from statprune.system.timing import phase


def kept_model(context: RunContext, written: Path, record: RunRecord) -> tuple[Path, RunRecord]:
    """Put the model that the run saves in its place.

    What can't be compressed stays dense; the problem is raised at the end of the run.

    Args:
        context: the run.
        written: the dense model's folder.
        record: of the run.

    Returns:
        Its folder, and the record with what was saved.
    """
    if context.config.settings.compresses_model:
        if written.name == MODEL:  # an earlier attempt was to save it dense
            own_model.remove(context.folder, UNSAVED, record)
            written = own_model.renamed(context.folder, MODEL, UNSAVED)
        try:
            with phase(context.seconds, "compress"):
                return _compressed(context.folder, written, record)
        except (OSError, StatpruneError) as error:
            context.save_problem = context.save_problem or _problem(context.folder, error)
    if written.name != MODEL:  # this attempt may save what an earlier one would not
        own_model.remove(context.folder, MODEL, record)
        written = own_model.renamed(context.folder, written.name, MODEL)
    return written, record


def _compressed(run: Path, written: Path, record: RunRecord) -> tuple[Path, RunRecord]:
    """The compressed model, which was read again and gives the dense bytes.

    Raises:
        OSError or StatpruneError: it can't be written.
    """
    own_model.remove(run, MODEL, record)  # what a killed attempt has left
    folder = own_model.begin(run, MODEL)
    sizes = write_compressed(written, folder)
    hashes = {path.name: sha256_of(path) for path in (*shards_of(folder), folder / COMPRESSED)}
    own_model.complete(run, MODEL, hashes)
    saved = record.saved
    if saved is not None:
        saved = replace(saved, shards=hashes, compressed=sizes)
    return folder, replace(record, saved=saved)


def _problem(run: Path, error: Exception) -> ModelError:
    reason = disk_problem(error, str(run / MODEL)) or first_line(error)
    return ModelError(
        f"the saved model could not be compressed ({reason}) and is dense in {run / MODEL}; its measurements are in "
        f"result.json, and statprune compress {run / MODEL} FOLDER compresses it"
    )
