"""What is wrong with the repository of the hub that a run's model is to be sent to, as far as its name tells."""

from statprune.config.sections import Settings


def hub_problems(settings: Settings) -> list[str]:
    """A sentence for each thing that is wrong with ``push_to_hub`` and ``push_private``."""
    if settings.push_to_hub is None:
        lost = "push_private=true has no effect without push_to_hub; name a repository, or leave it out"
        return [lost] if settings.push_private else []
    problems = [problem] if (problem := repository_problem(settings.push_to_hub, "push_to_hub=")) else []
    if not settings.saves_model:
        problems.append(
            f"push_to_hub={settings.push_to_hub} sends the saved model, and none is saved; set save_model=true or "
            "compressed"
        )
    return problems


def repository_problem(name: str, what: str = "") -> str | None:
    """What is wrong with the name of a model's repository on the hub, in one sentence, or None.

    Args:
        name: as it was given.
        what: stands before it in the sentence: ``push_to_hub=``.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if name.count("/") != 1:
        return f"{what}{name} is no repository's name; give OWNER/NAME, the owner being you or an organisation of yours"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        reason = str(error).splitlines()[0].rstrip(".").replace("Repo id", "it")
        return f"{what}{name} is no repository's name ({reason}); give OWNER/NAME"
    return None
