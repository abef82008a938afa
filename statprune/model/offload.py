"""Keep the decoder blocks' weights on the host or on disk, and bring one block at a time to the device.

A block's parameters stay the same objects; their values are put there while the block is needed and taken away
afterwards. In the meantime one thread reads the next block and writes the last one, in turn, so that at most two are on
the device.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.system.malloc import release_free_memory, return_freed_blocks

Weights = dict[str, Tensor]


class Source(Protocol):
    """Where the weights of blocks are stored; called by one thread at a time."""

    def read(self, index: int) -> Weights:
        """A block's weights on the host, by parameter name within the block; the caller may change them."""

    def write(self, index: int, weights: Weights) -> None:
        """Store a block's changed weights, which are on the host."""

    def close(self) -> None:
        """Remove temporary files."""


class HostSource:
    """Weights in the host's memory.

    Args:
        modules: the blocks; the tensors of their parameters are the storage.
        pin: page-lock the tensors, so that a GPU can copy them while it computes.
    """

    def __init__(self, modules: list[nn.Module], pin: bool):
        self._blocks: list[Weights] = []
        self._pin = pin
        for module in modules:
            for parameter in module.parameters():
                if pin:  # one at a time: the model is not held twice
                    parameter.data = parameter.data.pin_memory()
            self._blocks.append({name: parameter.detach() for name, parameter in module.named_parameters()})

    def read(self, index: int) -> Weights:
        """A block's weights; a copy, unless they are pinned: those are copied to a GPU and not changed."""
        return {name: tensor if self._pin else tensor.clone() for name, tensor in self._blocks[index].items()}

    def write(self, index: int, weights: Weights) -> None:
        """Copy a block's changed weights into its tensors."""
        for name, tensor in weights.items():
            self._blocks[index][name].copy_(tensor)

    def close(self) -> None:
        """Nothing to remove."""


class Streamer:
    """Puts blocks' weights on the device while they are needed; a block's own forward asks for them, too.

    Args:
        modules: the blocks in order.
        source: their weights.
        device: where they are computed.

    Attributes:
        on_load: called whenever a block's weights have arrived on the device.
        block_bytes: size of each block's streamed weights.
    """

    def __init__(self, modules: list[nn.Module], source: Source, device: torch.device):
        self.modules, self.source, self.device = modules, source, device
        return_freed_blocks(2**20)
        self.on_load: list[Callable[[], None]] = []
        self._parameters = [dict(module.named_parameters()) for module in modules]
        owners: dict[int, int] = {}
        for parameters in self._parameters:
            for parameter in parameters.values():
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        for index, parameters in enumerate(self._parameters):  # parameters that blocks share stay on the device
            shared = {name for name, parameter in parameters.items() if owners[id(parameter)] > 1}
            if shared:
                weights = source.read(index)
                for name in shared:
                    parameters.pop(name).data = weights[name].to(device)
        self.block_bytes = [sum(map(size_of, parameters.values())) for parameters in self._parameters]
        self._streamed = {id(parameter) for parameters in self._parameters for parameter in parameters.values()}
        self._held: dict[int, int] = {}
        self._next: tuple[int, Future[Weights]] | None = None
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "statprune-offload")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        for index, module in enumerate(modules):
            for parameter in self._parameters[index].values():
                parameter.data = placeholder(parameter, device)
            module.forward = self._on_demand(index, module.forward)

    @contextmanager
    def held(self, index: int, changed: bool = False) -> Iterator[None]:
        """Have a block's weights on the device while the body runs.

        Args:
            index: of the block.
            changed: store the weights as they are at the end.
        """
        if not self._held.get(index):
            self._load(index)
        self._held[index] = self._held.get(index, 0) + 1
        try:
            yield
        finally:
            self._held[index] -= 1
            if not self._held[index]:
                self._unload(index, changed)

    def streams(self, parameter: Tensor) -> bool:
        """Whether the parameter is one of those that come and go."""
        return id(parameter) in self._streamed

    @property
    def writing(self) -> Future[None] | None:
        """The block that was changed last, while it is being stored."""
        return self._writing

    def changed_elsewhere(self, index: int) -> None:
        """Take note that the source has other weights of a block now, which is not on the device."""
        if self._next is not None and self._next[0] == index:
            self._next[1].result()
            self._next = None

    def settle(self) -> None:
        """Wait until all changed weights are stored.

        Raises:
            ModelError: they can't be written.
        """
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except (OSError, SafetensorError) as error:
            raise ModelError(f"a pruned block can't be written ({error}); run again with room on the disk") from error

    def close(self) -> None:
        """Stop, and remove temporary files; blocks can't be loaded afterwards."""
        self._thread.shutdown(cancel_futures=True)
        self.source.close()
        return_freed_blocks(2**25)

    def _on_demand(self, index: int, forward: Callable[..., object]) -> Callable[..., object]:
        def held_forward(*args: object, **kwargs: object) -> object:
            with self.held(index):
                return forward(*args, **kwargs)

        return held_forward

    def _load(self, index: int) -> None:
        prefetched = self._next[1] if self._next is not None and self._next[0] == index else None
        weights = (prefetched or self._thread.submit(self._fetch, index)).result()
        for name, parameter in self._parameters[index].items():
            parameter.data = weights[name]
        following = index + 1
        self._next = None
        if following < len(self.modules) and not self._held.get(following):
            self._next = (following, self._thread.submit(self._fetch, following))
        for listener in self.on_load:
            listener()

    def _fetch(self, index: int) -> Weights:
        weights = self.source.read(index)
        if self._stream is None:
            return {name: weights[name].to(self.device) for name in self._parameters[index]}
        with torch.cuda.stream(self._stream):
            arrived = {name: weights[name].to(self.device, non_blocking=True) for name in self._parameters[index]}
        self._stream.synchronize()
        return arrived

    def _unload(self, index: int, changed: bool) -> None:
        weights = {name: parameter.data for name, parameter in self._parameters[index].items()}
        for parameter in self._parameters[index].values():
            parameter.data = placeholder(parameter, self.device)
        if self._stream is not None:
            # their memory belongs to the copying stream, which may reuse it only after the computations with them
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        release_free_memory()
        if changed:
            self.settle()  # a full disk shows here
            self._writing = self._thread.submit(self._store, index, weights)

    def _store(self, index: int, weights: Weights) -> None:
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                host = {}
                for name in list(weights):
                    host[name] = torch.empty_like(weights[name], device="cpu", pin_memory=True)
                    host[name].copy_(weights[name], non_blocking=True)
            self._stream.synchronize()
            weights.clear()  # off the device before the next block arrives
            weights = host
        self.source.write(index, weights)
        weights.clear()
        release_free_memory()


def is_here(parameter: Tensor) -> bool:
    """Whether the parameter's values are on the device, and not streamed away."""
    return parameter.untyped_storage().nbytes() >= parameter.numel() * parameter.element_size()


def size_of(tensor: Tensor) -> int:
    """Bytes of the tensor's values."""
    return tensor.numel() * tensor.element_size()


def placeholder(parameter: Tensor, device: torch.device) -> Tensor:
    """A tensor of the parameter's shape and dtype that takes the memory of one value."""
    return torch.empty(1, dtype=parameter.dtype, device=device).expand(parameter.shape)
