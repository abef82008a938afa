"""Whether the model and data hub can be reached; where it can't, the local cache is used at once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Yield whether the hub can be reached; if not, the body only asks the local cache.

    Otherwise transformers and datasets each retry for half a minute before they give up.
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
