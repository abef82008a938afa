"""Where the hidden states of windows wait between two blocks: on the device, on the host, or in files.

Hidden states can be sent for before they are needed, and are copied back while the device goes on.
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


class Placement(Enum):
    """Where hidden states wait; auto is the first of device, host and disk that has room."""

    auto = "auto"
    device = "device"
    host = "host"
    disk = "disk"


class StoredHidden(Protocol):
    """Hidden states that wait."""

    def send(self) -> None:
        """Start them on the way to the device."""

    def get(self) -> Tensor:
        """The hidden states, on the device."""

    def copy(self) -> "StoredHidden":
        """The same hidden states in a store of their own, whatever replaces them in this one."""

    def replaced(self, hidden: Tensor) -> "StoredHidden":
        """A store of ``hidden`` in place of this one, which is not asked again."""


StoreHidden = Callable[[Tensor], StoredHidden]


class OnDevice:
    """Hidden states that stay on the device."""

    def __init__(self, hidden: Tensor):
        self._hidden = hidden

    def send(self) -> None:
        """They are there already."""

    def get(self) -> Tensor:
        """The hidden states."""
        return self._hidden

    def copy(self) -> "OnDevice":
        """A clone."""
        return OnDevice(self._hidden.clone())

    def replaced(self, hidden: Tensor) -> "OnDevice":
        """The new hidden states, in the old memory where they fit."""
        if hidden.shape != self._hidden.shape or hidden.dtype != self._hidden.dtype:
            return OnDevice(hidden)
        # the same memory: long-lived tensors amid short-lived ones would fragment it
        self._hidden.copy_(hidden)
        return self


class OnePiece:
    """Memory on a CPU for the hidden states of all windows together.

    A batch's own tensor would wait amid smaller ones that come and go, and fragment the memory of the allocator.

    Args:
        windows: how many there are.
    """

    def __init__(self, windows: int):
        self._windows, self._used = windows, 0
        self._memory: Tensor | None = None

    def hold(self, hidden: Tensor, windows: int) -> Tensor:
        """A contiguous copy of one batch's hidden states; a tensor of its own where it does not fit.

        Args:
            hidden: of so many windows, any shape.
            windows: of this batch.
        """
        if self._memory is None:
            self._memory = hidden.new_empty(hidden.numel() // windows * self._windows)
        first, last = self._used, self._used + hidden.numel()
        if last > len(self._memory) or hidden.dtype != self._memory.dtype:
            return hidden.clone(memory_format=torch.contiguous_format)
        self._used = last
        return self._memory[first:last].view(hidden.shape).copy_(hidden)


class OnHost:
    """Hidden states in page-locked memory of the host, copied both ways by a stream of their own."""

    _streams: dict[torch.device, torch.cuda.Stream] = {}  # noqa: RUF012 - one for each device, shared on purpose

    def __init__(self, hidden: Tensor):
        self._device = hidden.device
        self._on_device: Tensor | None = None
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
        """Start copying them to the GPU."""
        if self._device.type == "cuda" and self._on_device is None:
            with torch.cuda.stream(self._stream):  # in order after the copy to the host
                self._on_device = self._host.to(self._device, non_blocking=True)
                self._arrived = self._stream.record_event()

    def get(self) -> Tensor:
        """The hidden states, on the GPU."""
        if self._device.type != "cuda":
            return self._host
        self.send()
        hidden, self._on_device = self._on_device, None
        assert hidden is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._arrived)  # and not for what was sent after it
        hidden.record_stream(current)
        return hidden

    def copy(self) -> "OnHost":
        """This store, whose memory is never changed."""
        return self

    def replaced(self, hidden: Tensor) -> "OnHost":
        """A new store."""
        return OnHost(hidden)


class OnDisk:
    """Hidden states in a file, which is removed with the store.

    Args:
        hidden: the hidden states.
        folder: where the file is made.
    """

    _thread = ThreadPoolExecutor(1, "statprune-activations")
    _last_write: Future[None] | None = None

    def __init__(self, hidden: Tensor, folder: Path):
        self._device, self._shape, self._dtype = hidden.device, hidden.shape, hidden.dtype
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".hidden", delete=False) as file:
            self._path = Path(file.name)
        weakref.finalize(self, _remove, self._path)
        self._reading: Future[Tensor] | None = None
        if OnDisk._last_write is not None:
            last, OnDisk._last_write = OnDisk._last_write, None
            _wait_for(last)  # one at a time waits in memory to be written
        computed = torch.cuda.current_stream(hidden.device).record_event() if hidden.is_cuda else None
        self._writing = OnDisk._last_write = self._thread.submit(self._write, hidden.detach(), computed)

    def send(self) -> None:
        """Start reading the file."""
        if self._reading is None:
            self._reading = self._thread.submit(self._read)

    def get(self) -> Tensor:
        """The hidden states, read and sent to the device."""
        if OnDisk._last_write is self._writing:
            OnDisk._last_write = None  # a failure is told once, here, and not to who stores something next
        _wait_for(self._writing)
        self.send()
        assert self._reading is not None
        hidden, self._reading = self._reading.result(), None
        return hidden.to(self._device)

    def copy(self) -> "OnDisk":
        """This store, whose file is never changed."""
        return self

    def replaced(self, hidden: Tensor) -> "OnDisk":
        """A new store in the same folder."""
        return OnDisk(hidden, self._path.parent)

    def _write(self, hidden: Tensor, computed: torch.cuda.Event | None) -> None:
        if computed is not None:  # by the caller's stream, which need not be this thread's
            torch.cuda.current_stream(hidden.device).wait_event(computed)
        values = hidden.cpu().contiguous().flatten().view(torch.uint8).numpy()
        with self._path.open("wb") as file:  # not through a memory map, where a full disk kills the process
            file.write(values.data)  # numpy's own tofile does not say why it fails

    def _read(self) -> Tensor:
        return torch.from_numpy(np.fromfile(self._path, np.uint8)).view(self._dtype).view(self._shape)


class OnDiskIn:
    """Stores hidden states in files of one folder.

    Args:
        folder: where the files are made; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder if folder is not None else Path(tempfile.gettempdir())
        OnDisk._last_write = None  # what another run could not write is none of this one's

    def __call__(self, hidden: Tensor) -> OnDisk:
        """Store hidden states."""
        return OnDisk(hidden, self._folder)


def hidden_store(placement: Placement, folder: Path | None) -> StoreHidden:
    """What stores hidden states at a placement.

    Args:
        placement: device, host or disk.
        folder: for the files, where ``placement`` is disk.
    """
    if placement is Placement.disk:
        return OnDiskIn(folder)
    return OnHost if placement is Placement.host else OnDevice


def _wait_for(writing: Future[None]) -> None:
    try:
        writing.result()
    except OSError as error:
        raise ModelError(
            f"hidden states can't be written ({error}); run again with room on the disk, or with activations=host"
        ) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
