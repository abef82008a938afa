"""Where the hidden states of windows wait between two blocks: on the device, on the host, or in files.

Hidden states on their way to the device can be sent for ahead of time, and those on their way back are copied while the
device goes on.
"""

import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from statprune.errors import ModelError


class Place(Enum):
    """Where hidden states wait; auto is the first of device, host and disk that has room."""

    auto = "auto"
    device = "device"
    host = "host"
    disk = "disk"


class Kept(Protocol):
    """Hidden states that wait."""

    def send(self) -> None:
        """Start on the way to the device."""

    def get(self) -> Tensor:
        """The hidden states, on the device."""

    def copy(self) -> "Kept":
        """What goes on keeping these, whatever replaces them here."""

    def replaced(self, hidden: Tensor) -> "Kept":
        """What keeps ``hidden`` in place of these, which are not asked for again."""


Keep = Callable[[Tensor], Kept]


class OnDevice:
    """Kept as they are."""

    def __init__(self, hidden: Tensor):
        self._hidden = hidden

    def send(self) -> None:
        pass

    def get(self) -> Tensor:
        return self._hidden

    def copy(self) -> "OnDevice":
        return OnDevice(self._hidden.clone())

    def replaced(self, hidden: Tensor) -> "OnDevice":
        if hidden.shape != self._hidden.shape or hidden.dtype != self._hidden.dtype:
            return OnDevice(hidden)
        # in the same memory: what comes and stays amid what comes and goes would fragment it
        self._hidden.copy_(hidden)
        return self


class OnHost:
    """In page-locked memory of the host, copied both ways by a stream of their own."""

    _streams: dict[torch.device, torch.cuda.Stream] = {}  # noqa: RUF012 - one for each device, shared on purpose

    def __init__(self, hidden: Tensor):
        self._device = hidden.device
        self._on_way: Tensor | None = None
        if hidden.device.type != "cuda":
            self._host = hidden
            return
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(hidden.device))
        with torch.cuda.stream(stream):
            self._host = torch.empty_like(hidden, device="cpu", pin_memory=True)
            self._host.copy_(hidden, non_blocking=True)
        hidden.record_stream(stream)

    @property
    def _stream(self) -> torch.cuda.Stream:
        if self._device not in self._streams:
            self._streams[self._device] = torch.cuda.Stream(self._device)
        return self._streams[self._device]

    def send(self) -> None:
        if self._device.type == "cuda" and self._on_way is None:
            with torch.cuda.stream(self._stream):  # in order after the copy to the host
                self._on_way = self._host.to(self._device, non_blocking=True)
                self._arrived = self._stream.record_event()

    def get(self) -> Tensor:
        if self._device.type != "cuda":
            return self._host
        self.send()
        hidden, self._on_way = self._on_way, None
        assert hidden is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._arrived)  # and not for all that was sent after it
        hidden.record_stream(current)
        return hidden

    def copy(self) -> "OnHost":
        return self  # never changed

    def replaced(self, hidden: Tensor) -> "OnHost":
        return OnHost(hidden)


class OnDisk:
    """In a file, which goes with them.

    Args:
        hidden: the hidden states.
        folder: where the file is made.
    """

    _thread = ThreadPoolExecutor(1, "statprune-activations")
    _last: Future[None] | None = None

    def __init__(self, hidden: Tensor, folder: Path):
        self._device, self._shape, self._dtype = hidden.device, hidden.shape, hidden.dtype
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".hidden", delete=False) as file:
            self._path = Path(file.name)
        weakref.finalize(self, _remove, self._path)
        self._on_way: Future[Tensor] | None = None
        if OnDisk._last is not None:
            last, OnDisk._last = OnDisk._last, None
            _written(last)  # one at a time waits in memory to be written
        self._written = OnDisk._last = self._thread.submit(self._write, hidden.detach())

    def send(self) -> None:
        if self._on_way is None:
            self._on_way = self._thread.submit(self._read)

    def get(self) -> Tensor:
        _written(self._written)
        self.send()
        assert self._on_way is not None
        hidden, self._on_way = self._on_way.result(), None
        return hidden.to(self._device)

    def copy(self) -> "OnDisk":
        return self  # never changed

    def replaced(self, hidden: Tensor) -> "OnDisk":
        return OnDisk(hidden, self._path.parent)

    def _write(self, hidden: Tensor) -> None:
        values = hidden.cpu().contiguous().flatten().view(torch.uint8).numpy()
        values.tofile(self._path)  # and not into a memory map, where a full disk kills the process

    def _read(self) -> Tensor:
        return torch.from_numpy(np.fromfile(self._path, np.uint8)).view(self._dtype).view(self._shape)


def _written(future: Future[None]) -> None:
    try:
        future.result()
    except OSError as error:
        raise ModelError(
            f"hidden states can't be written ({error}); run again with room on the disk, or with activations=host"
        ) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def keeper(place: Place, folder: Path | None) -> Keep:
    """What keeps hidden states at ``place``.

    Args:
        place: device, host or disk.
        folder: for the files; needed for disk.
    """
    if place is Place.disk:
        where = folder if folder is not None else Path(tempfile.gettempdir())
        return lambda hidden: OnDisk(hidden, where)
    return OnHost if place is Place.host else OnDevice
