"""The folder of a hub repository in the local cache, once its files are there."""

from collections.abc import Sequence
from pathlib import Path

from statprune.errors import ModelError, first_line
from statprune.model.location import absent_folder
from statprune.system.hub import hub_access


def hub_folder(path: str, patterns: Sequence[str] | None = None, revision: str | None = None) -> Path:
    """Download a hub repository, or find it in the local cache.

    Args:
        path: the hub id.
        patterns: of the files that are wanted; None: all.
        revision: branch, tag or commit; None: the main branch.

    Raises:
        ModelError: it can't be read.
    """
    import huggingface_hub

    wanted = None if patterns is None else list(patterns)
    with hub_access() as online:
        try:
            return Path(
                huggingface_hub.snapshot_download(
                    path, revision=revision, allow_patterns=wanted, local_files_only=not online
                )
            )
        except Exception as error:  # the client's error types change between versions
            reason = first_line(error) if online else "no network, and not in the local cache"
            raise ModelError(
                f"{absent_folder(path)}{path} can't be read ({reason}); give a local folder, a .gguf file, or a hub id "
                "that is reachable or in the local cache"
            ) from error
