"""A stand-in for the Hugging Face hub: what it was asked, and the folders that it was sent."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

COMMIT = "https://huggingface.co/somebody/small/commit/0123abcd"


@dataclass
class Hub:
    """The hub.

    Attributes:
        role: of the token.
        calls: names of the client's functions, and what they were given.
        files: of the folder that was sent last, as it was then.
        error: raised in place of taking a folder; None: it is taken.
    """

    role: str = "write"
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    error: Exception | None = None

    def whoami(self) -> dict[str, Any]:
        """Who the token belongs to."""
        self.calls.append(("whoami", {}))
        return {
            "name": "somebody",
            "orgs": [{"name": "lab"}],
            "auth": {"accessToken": {"role": self.role}},
        }

    def create_repo(self, repo_id: str, **options: Any) -> None:
        """Make a repository."""
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        """Take a folder."""
        self.calls.append(("upload_folder", options))
        if self.error is not None:
            raise self.error
        self.files = {path.name: path.read_bytes() for path in Path(options["folder_path"]).iterdir()}
        return SimpleNamespace(commit_url=COMMIT)

    @property
    def names(self) -> list[str]:
        """What it was asked, in order."""
        return [name for name, _ in self.calls]


def a_hub(patch: pytest.MonkeyPatch, token: str | None = "hf_of_nobody", reachable: bool = True) -> Hub:
    """A hub in place of the real one, for a token."""
    hub = Hub()
    patch.setattr("huggingface_hub.HfApi", lambda: hub)
    patch.setattr("huggingface_hub.get_token", lambda: token)
    patch.setattr("statprune.runs.pushing.reachable", lambda: reachable)
    return hub
