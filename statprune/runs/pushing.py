"""Send a run's saved model to the Hugging Face hub: checked before anything is pruned, done once all is recorded."""

import logging
import shlex
from dataclasses import replace
from pathlib import Path

from statprune.config.hub_target import repository_problem
from statprune.config.schema import RunConfig
from statprune.errors import StatpruneError, first_line
from statprune.model.compressed import is_compressed
from statprune.model.foreign import COMPRESSED
from statprune.runs import own_model
from statprune.runs.card_parts import PLACE
from statprune.runs.context import RunContext
from statprune.runs.measure import now
from statprune.runs.record import PushedModel, RunRecord
from statprune.runs.saved_run import saved_run
from statprune.runs.store import MODEL, amend_record, write_card
from statprune.system.console import waiting
from statprune.system.distributed import gathered, rank
from statprune.system.hub import reachable
from statprune.system.lock import locked

log = logging.getLogger(__name__)
# what an earlier push may have left of another form of the model
WEIGHTS = ["*.safetensors", "*.safetensors.index.json", COMPRESSED]


def check_target(config: RunConfig) -> None:
    """See whether the model of a run can be sent where it is to be sent, once it is pruned; all processes agree.

    Raises:
        StatpruneError: it can't.
    """
    name, problem = config.settings.push_to_hub, None
    if name is not None and rank() == 0:
        problem = access_problem(name)
    problem = gathered(problem)[0]
    if problem is not None:
        raise StatpruneError(
            f"push_to_hub={name}: {problem}; or leave push_to_hub out, and send the model later with statprune push"
        )


def access_problem(repository: str) -> str | None:
    """Why nothing can be sent to a repository, in half a sentence, or None; it is asked who the token belongs to.

    Args:
        repository: OWNER/NAME.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        return "there is no token for the hub; run `hf auth login`, or set HF_TOKEN"
    if not reachable():
        return "the hub can't be reached; try again with a network"
    try:
        user = HfApi().whoami()
    except Exception as error:  # the client's error types change between versions
        return f"the hub does not accept the token ({first_line(error)}); run `hf auth login`, or set HF_TOKEN"
    owner, token = repository.partition("/")[0], user.get("auth", {}).get("accessToken", {})
    owners = [str(user.get("name")), *(str(own.get("name")) for own in user.get("orgs", []))]
    if owner not in owners:
        return f"the token belongs to {owners[0]}, who has no part in {owner}; give one of {', '.join(owners)} as OWNER"
    if token.get("role") == "read":
        return "the token may only read; make one that may write, and run `hf auth login` with it"
    return None


def handed_on(context: RunContext, record: RunRecord) -> RunRecord:
    """Send a finished run's model where it is to go; a failure costs a warning, and no result.

    Returns:
        The record, with where it was sent.
    """
    name = context.config.settings.push_to_hub
    if name is None or rank() != 0:
        return record
    try:
        return push(context.folder, record, name, context.config.settings.push_private)
    except StatpruneError as error:
        log.warning("%s; %s", error, _later(context.folder, name))
    return record


def push(run: Path, record: RunRecord, repository: str, private: bool = False) -> RunRecord:
    """Send a run's saved model to the hub, and write down where.

    Args:
        run: its folder.
        record: of the run.
        repository: OWNER/NAME; it is made where it is not there.
        private: a repository that is made is a private one.

    Returns:
        The record, with where it was sent.

    Raises:
        StatpruneError: the hub does not take it.
    """
    from huggingface_hub import HfApi

    _name_in_card(run, record, repository)
    api = HfApi()
    try:
        with waiting(f"sending {run / MODEL} to {repository}"):
            api.create_repo(repository, repo_type="model", private=private or None, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                repo_type="model",
                folder_path=str(run / MODEL),
                commit_message=f"Upload {run.absolute().name}",
                delete_patterns=WEIGHTS,
            )
    except Exception as error:  # the client's error types change between versions
        raise StatpruneError(
            f"{run / MODEL} could not be sent to {repository} ({type(error).__name__}: {first_line(error)})"
        ) from error
    sent = replace(record, pushed=PushedModel(repository, str(commit.commit_url), now()))
    amend_record(run, sent)
    return sent


def push_finished(folder: Path, repository: str, private: bool) -> PushedModel:
    """Send the saved model of a run that has ended.

    Args:
        folder: of the run, or of its model.
        repository: OWNER/NAME.
        private: a repository that is made is a private one.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the hub does not take it.
    """
    own = saved_run(folder)
    if problem := repository_problem(repository):
        raise StatpruneError(problem)
    if damaged := own_model.lost(own.folder, MODEL, own.record):
        raise StatpruneError(f"the model in {own.folder} is damaged ({'; '.join(damaged)}), and is not sent")
    if problem := access_problem(repository):
        raise StatpruneError(f"{repository}: {problem}")
    with locked(own.folder):
        pushed = push(own.folder, own.record, repository, private).pushed
    assert pushed is not None
    return pushed


def note_on_model(config: RunConfig, run: Path, record: RunRecord) -> str | None:
    """What a finished run, which is not run again, has not done with its model as it is asked to now; or None.

    Args:
        config: as it is asked for.
        run: folder of the run.
        record: of the run.
    """
    settings, model, notes = config.settings, run / MODEL, []
    if settings.saves_model and settings.compresses_model != is_compressed(model):
        is_dense, verb = settings.compresses_model, "compress" if settings.compresses_model else "decompress"
        form = "dense" if is_dense else "compressed"
        notes.append(f"its model is saved {form}, and statprune {verb} {shlex.quote(str(model))} FOLDER changes that")
    if settings.push_to_hub is not None and (record.pushed is None or record.pushed.repository != settings.push_to_hub):
        notes.append(f"its model was not sent to {settings.push_to_hub}: {_later(run, settings.push_to_hub)}")
    return "; ".join(notes) or None


def _later(run: Path, repository: str) -> str:
    return f"statprune push {shlex.quote(str(run))} {repository} sends it"


def _name_in_card(run: Path, record: RunRecord, repository: str) -> None:
    """Put the repository's name where the card names the place to open the model from; the rest stays as it is."""
    card = run / MODEL / own_model.CARD
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8")
    before = [PLACE, record.config.get("push_to_hub"), record.pushed.repository if record.pushed is not None else None]
    named = text
    for place in before:
        named = named.replace(f'"{place}"', f'"{repository}"') if place else named
    if named != text:
        write_card(run, record, named)
