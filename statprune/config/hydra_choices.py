"""Choices of groups, ours and Hydra's own: launchers and sweepers."""

import difflib
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from hydra.core.override_parser.types import Override

from statprune.config.compose import choice_names, hydra_groups
from statprune.config.operators import group_problem
from statprune.system.extras import install_command

# what brings a launcher or sweeper: our extra, and the distribution of its plugin
PLUGINS = {
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "submitit_slurm": ("slurm", "hydra-submitit-launcher"),
    "submitit_local": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
    "optuna": ("optuna", "hydra-optuna-sweeper"),
}


def hydra_group_problems(override: Override) -> list[str]:
    """What is wrong with the choice of one of Hydra's own groups, in sentences."""
    known = [f"hydra/{group}" for group in hydra_groups()]
    if override.key_or_group not in known:
        near = difflib.get_close_matches(override.key_or_group, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
        return [f"{override.key_or_group} is no group of Hydra's; {hint}"]
    names = choice_names(override.key_or_group)
    if override.key_or_group not in ("hydra/launcher", "hydra/sweeper") and override.value() is None:
        return []  # the others may be left out; what Hydra makes of that is looked at when all is composed
    problem = choice_problem(override, names, is_present=True) or _plugin_problem(override)
    return [problem] if problem else []


def choice_problem(override: Override, options: Sequence[str], is_present: bool) -> str | None:
    """What is wrong with the choice of a group, in a sentence, or None.

    Args:
        override: of the group.
        options: the choices there are.
        is_present: the group has a choice already.
    """
    if problem := group_problem(override, options, is_present):
        return problem
    key, choice = override.key_or_group, override.value()
    if isinstance(choice, str) and choice in options:
        return None
    shown = "null" if choice is None else str(choice)
    near = [f"{key}={name}" for name in difflib.get_close_matches(shown, options, 1)]
    if isinstance(choice, float) and key == "sparsity":
        near = [f"sparsity.ratio={choice}"]
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{key}={shown} is not a choice; choose one of {', '.join(options)}{hint}"


def _plugin_problem(override: Override) -> str | None:
    """What the chosen launcher or sweeper lacks here; Hydra itself ends in a traceback."""
    extra, distribution = PLUGINS.get(str(override.value()), ("", ""))
    try:
        version(distribution or "statprune")
    except PackageNotFoundError:
        return f"{override.input_line} needs a package that is not installed; run {install_command(extra)}"
    if override.value() == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        return f"{override.input_line} finds no sbatch or srun on this machine; start it where Slurm's commands are"
    return None
