"""Keep the decoder blocks' weights on the host or on disk, and bring one block at a time to the device.

A block's parameters stay the same objects; what they hold is put there while the block is needed and taken away after.
One thread reads the next block and writes the last one meanwhile, in turn, so that at most two are on the device.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.system.malloc import give_back, return_at_once

Weights = dict[str, Tensor]


class Source(Protocol):
    """Where the weights of blocks are kept; called by one thread at a time."""

    def read(self, index: int) -> Weights:
        """A block's weights on the host, by parameter name within the block; the caller may change them."""

    def write(self, index: int, weights: Weights) -> None:
        """Keep a block's changed weights, given on the host."""

    def close(self) -> None:
        """Remove what was made on the way."""


class HostSource:
    """Weights in the host's memory.

    Args:
        modules: the blocks; their parameters' tensors are kept.
        pin: page-lock them, which lets a GPU copy them while it computes.
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
        # pinned ones are copied to a GPU, and not changed
        return {name: tensor if self._pin else tensor.clone() for name, tensor in self._blocks[index].items()}

    def write(self, index: int, weights: Weights) -> None:
        for name, tensor in weights.items():
            self._blocks[index][name].copy_(tensor)

    def close(self) -> None:
        pass


class Streamer:
    """Puts blocks' weights onto the device while they are needed; a block's own forward asks for them, too.

    Args:
        modules: the blocks in order.
        source: their weights.
        device: where they are computed.

    Attributes:
        on_load: called whenever a block's weights have come.
        block_bytes: size of each block's streamed weights.
    """

    def __init__(self, modules: list[nn.Module], source: Source, device: torch.device):
        self.modules, self.source, self.device = modules, source, device
        return_at_once(2**20)
        self.on_load: list[Callable[[], None]] = []
        self._parameters = [dict(module.named_parameters()) for module in modules]
        owners: dict[int, int] = {}
        for parameters in self._parameters:
            for parameter in parameters.values():
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        for index, parameters in enumerate(self._parameters):  # what several blocks share stays on the device
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
        """The block's weights are on the device meanwhile; ``changed`` ones are kept after."""
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

    def settle(self) -> None:
        """Wait until all changed weights are kept.

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
        """Stop, and remove what was made on the way; blocks can't be loaded after."""
        self._thread.shutdown(cancel_futures=True)
        self.source.close()
        return_at_once(2**25)

    def _on_demand(self, index: int, forward: Callable[..., object]) -> Callable[..., object]:
        def held_forward(*args: object, **kwargs: object) -> object:
            with self.held(index):
                return forward(*args, **kwargs)

        return held_forward

    def _load(self, index: int) -> None:
        wanted = self._next[1] if self._next is not None and self._next[0] == index else None
        weights = (wanted or self._thread.submit(self._fetch, index)).result()
        for name, parameter in self._parameters[index].items():
            parameter.data = weights[name]
        following = index + 1
        self._next = None
        if following < len(self.modules) and not self._held.get(following):
            self._next = (following, self._thread.submit(self._fetch, following))
        for tell in self.on_load:
            tell()

    def _fetch(self, index: int) -> Weights:
        weights = self.source.read(index)
        if self._stream is None:
            return {name: weights[name].to(self.device) for name in self._parameters[index]}
        with torch.cuda.stream(self._stream):
            arrived = {n: weights[n].to(self.device, non_blocking=True) for n in self._parameters[index]}
        self._stream.synchronize()
        return arrived

    def _unload(self, index: int, changed: bool) -> None:
        weights = {name: parameter.data for name, parameter in self._parameters[index].items()}
        for parameter in self._parameters[index].values():
            parameter.data = placeholder(parameter, self.device)
        if self._stream is not None:
            # their memory is the copying stream's, which uses it again only after what was computed with them
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        give_back()
        if changed:
            self.settle()  # a full disk shows here
            self._writing = self._thread.submit(self._keep, index, weights)

    def _keep(self, index: int, weights: Weights) -> None:
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                host = {}
                for name in list(weights):
                    host[name] = torch.empty_like(weights[name], device="cpu", pin_memory=True)
                    host[name].copy_(weights[name], non_blocking=True)
            self._stream.synchronize()
            weights.clear()  # off the device before the next block comes
            weights = host
        self.source.write(index, weights)
        weights.clear()
        give_back()


def is_here(parameter: Tensor) -> bool:
    """Whether its values are on the device, and not streamed away."""
    return parameter.untyped_storage().nbytes() >= parameter.numel() * parameter.element_size()


def size_of(tensor: Tensor) -> int:
    """Bytes of the tensor's values."""
    return tensor.numel() * tensor.element_size()


def placeholder(parameter: Tensor, device: torch.device) -> Tensor:
    """A tensor of the parameter's shape and dtype that takes the memory of one value."""
    return torch.empty(1, dtype=parameter.dtype, device=device).expand(parameter.shape)
