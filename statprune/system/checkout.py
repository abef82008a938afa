"""The checkout that this code is in: its commit, and whether its files differ from it."""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """Commit of this checkout; None for an installed wheel, which another project's checkout may hold."""
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        return commit if Path(top).resolve() == _checkout() else None
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def has_local_changes() -> bool | None:
    """Whether tracked files differ from the commit; None where git does not say."""
    try:
        return bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_checkout()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]
