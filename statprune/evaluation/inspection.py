"""Inspect a checkpoint tensor by tensor: zeros, N:M patterns, ties, and what differs from a dense one."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from statprune.core.sparsity_facts import (
    ChangeFacts,
    ZeroFacts,
    change_facts,
    count_not_finite,
    no_change,
    zero_facts,
)
from statprune.errors import ModelError
from statprune.evaluation.tensor_roles import CODES, is_coded, is_countable, is_weight_matrix, scales_of
from statprune.model.any_checkpoint import open_dense, saved_by_run
from statprune.model.checkpoint_tensors import CheckpointTensors, open_checkpoint
from statprune.model.tensor_names import named_as

IN_BLOCK = re.compile(r"^(?:.*?\.)?(?:layers|blocks|blk|h|block|layer)\.(\d+)\.(.+)$")
ANY_BLOCK = re.compile(r"^.*?\.(\d+)\.(.+)$")  # lists of blocks that are called otherwise
ACHIEVED = re.compile(r"achieved (\d\.\d+) over all block matrices")  # in our model cards
ROUNDING = 5e-6  # of a sparsity in a card


@dataclass(frozen=True)
class InspectedTensor:
    """One tensor.

    Attributes:
        name: as the checkpoint has it.
        block: number of its decoder block; None outside of them.
        kind: its name without numbers and without ``weight``: self_attn.q_proj.
        shape: as it is stored.
        dtype: bfloat16, float32 …
        facts: of the zeros; None where it is no matrix of weights, or holds another tool's codes.
        not_finite: values that are NaN or infinite.
        same_as: another tensor with the very same values, as tied ones have; None.
        change: against the dense checkpoint; None where it is no matrix or nothing was compared.
        is_changed: whether it differs from the dense checkpoint's in any value; None where nothing was compared.
        problem: why it could not be compared, or None.
    """

    name: str
    block: int | None
    kind: str
    shape: tuple[int, ...]
    dtype: str
    facts: ZeroFacts | None = None
    not_finite: int = 0
    same_as: str | None = None
    change: ChangeFacts | None = None
    is_changed: bool | None = None
    problem: str | None = None

    @property
    def is_block_matrix(self) -> bool:
        """Whether it is a matrix of a decoder block, which pruning may change."""
        return self.block is not None and self.facts is not None

    @property
    def is_coded_matrix(self) -> bool:
        """Whether it is a matrix of a decoder block that holds codes, whose zeros can't be counted."""
        is_matrix = self.block is not None and is_weight_matrix(self.name, self.shape)
        return is_matrix and not is_countable(getattr(torch, self.dtype))


@dataclass(frozen=True)
class Inspection:
    """A checkpoint's tensors.

    Attributes:
        path: as it was given.
        against: the dense checkpoint it was compared with; None: none.
        bytes: of the files of tensors.
        tensors: in the checkpoint's order.
        says_tied: what config.json says of the embeddings and the head; None: nothing.
        card_sparsity: what the model card says was achieved over all block matrices; None: nothing.
        missing: tensors that only the dense checkpoint has.
        unread: files of tensors in the folder that are no part of the checkpoint.
    """

    path: str
    against: str | None
    bytes: int
    tensors: tuple[InspectedTensor, ...]
    says_tied: bool | None = None
    card_sparsity: float | None = None
    missing: tuple[str, ...] = field(default_factory=tuple)
    unread: tuple[str, ...] = field(default_factory=tuple)

    @property
    def matrices(self) -> tuple[InspectedTensor, ...]:
        """The matrices of decoder blocks."""
        return tuple(tensor for tensor in self.tensors if tensor.is_block_matrix)

    @property
    def coded_matrices(self) -> tuple[InspectedTensor, ...]:
        """The matrices of decoder blocks whose zeros can't be counted."""
        return tuple(tensor for tensor in self.tensors if tensor.is_coded_matrix)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of all decoder blocks' matrices."""
        return share_of_zeros(self.matrices)

    @property
    def is_card_true(self) -> bool | None:
        """Whether the card's sparsity is what was counted; None where it names none."""
        return None if self.card_sparsity is None else abs(self.card_sparsity - self.sparsity) <= ROUNDING

    @property
    def changed_elsewhere(self) -> tuple[InspectedTensor, ...]:
        """Tensors that differ from the dense checkpoint's although pruning changes only blocks' matrices."""
        return tuple(own for own in self.tensors if own.is_changed and not own.is_block_matrix)

    @property
    def not_compared(self) -> tuple[InspectedTensor, ...]:
        """Tensors that the dense checkpoint lacks, or has in another shape."""
        return tuple(own for own in self.tensors if own.problem is not None)


def inspect_checkpoint(
    path: str, against: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Count a checkpoint's zeros; one tensor, and its dense original, are in memory at a time.

    Args:
        path: folder of a model or of a run that saved one, .gguf file, ``pkg://package/file`` or hub id.
        against: a dense checkpoint that it is compared with.
        progress: called with how many tensors are done, and how many there are.

    Raises:
        ModelError: a checkpoint is missing or damaged.
    """
    own = open_checkpoint(saved_by_run(path))
    dense = named_as(own.readers, open_dense(against, own.readers)) if against is not None else None
    if dense is not None and not own.readers.keys() & dense.readers.keys():
        raise ModelError(f"{path} and {against} have no tensor's name in common; give the model that was pruned")
    seen: dict[tuple[object, ...], str] = {}
    tensors = []
    for number, (name, read) in enumerate(own.readers.items(), start=1):
        tensors.append(_inspected(name, read(), dense, seen))
        if progress is not None:
            progress(number, len(own.readers))
    tied = own.config.get("tie_word_embeddings")
    return Inspection(
        path=path,
        against=against,
        bytes=own.bytes,
        tensors=tuple(_settled(tensors)),
        says_tied=tied if isinstance(tied, bool) else None,
        card_sparsity=_achieved(own),
        missing=tuple(sorted(dense.readers.keys() - own.readers.keys())) if dense is not None else (),
        unread=own.unread,
    )


def place_of_tensor(name: str) -> tuple[int | None, str]:
    """The number of the decoder block that a tensor is in, None outside of them, and what kind it is.

    Experts are of one kind, whatever their numbers.

    Examples:
        >>> place_of_tensor("model.layers.3.mlp.experts.7.w1.weight")
        (3, 'mlp.experts.w1')
        >>> place_of_tensor("lm_head.weight")
        (None, 'lm_head')
    """
    block, rest = name_in_block(name)
    return block, _without_numbers(rest)


def name_in_block(name: str) -> tuple[int | None, str]:
    """The number of the decoder block that a tensor is in, None outside of them, and its module's name within it.

    Examples:
        >>> name_in_block("model.layers.3.mlp.experts.7.w1.weight")
        (3, 'mlp.experts.7.w1')
    """
    found = IN_BLOCK.match(name) or ANY_BLOCK.match(name)
    rest = (found[2] if found else name).removesuffix(".weight")
    return (int(found[1]) if found else None), rest


def _without_numbers(name: str) -> str:
    return ".".join(part for part in name.split(".") if not part.isdigit())


def _settled(tensors: list[InspectedTensor]) -> Iterator[InspectedTensor]:
    """The tensors, without what only the names of all tell to be wrong.

    Another list than the decoder blocks', such as Gemma 3n's altup_projections, is none beside a list called as usual,
    and scales of codes are no matrices.
    """
    has_blocks = any(IN_BLOCK.match(own.name) for own in tensors)
    coded = [
        own.name for own in tensors if is_weight_matrix(own.name, own.shape) and is_coded(getattr(torch, own.dtype))
    ]
    scales = scales_of(coded, [own.name for own in tensors])
    for own in tensors:
        if has_blocks and own.block is not None and not IN_BLOCK.match(own.name):
            own = replace(own, block=None, kind=_without_numbers(own.name.removesuffix(".weight")))
        yield replace(own, facts=None, change=None) if own.name in scales else own


def _inspected(
    name: str, tensor: Tensor, dense: CheckpointTensors | None, seen: dict[tuple[object, ...], str]
) -> InspectedTensor:
    block, kind = place_of_tensor(name)
    is_counted = is_countable(tensor.dtype)
    is_matrix = is_counted and is_weight_matrix(name, tensor.shape)
    facts = zero_facts(tensor) if is_matrix else None
    twin = seen.setdefault(_key(tensor), name) if is_matrix else name
    own = InspectedTensor(
        name=name,
        block=block,
        kind=kind,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        facts=facts,
        not_finite=count_not_finite(tensor) if is_counted else 0,
        same_as=twin if twin != name else None,
    )
    if dense is None:
        return own
    original = dense.readers[name]() if name in dense.readers else None
    if original is None or original.shape != tensor.shape:
        what = "is not there" if original is None else f"has the shape {tuple(original.shape)} there"
        return replace(own, problem=what)
    changed = not _is_equal(tensor, original)
    if facts is None:
        return replace(own, is_changed=changed)
    return replace(own, change=change_facts(tensor, original) if changed else no_change(facts), is_changed=changed)


def _is_equal(tensor: Tensor, original: Tensor) -> bool:
    """Whether two tensors have the same values; NaN is equal to itself."""
    if tensor.dtype in CODES or original.dtype in CODES:
        return tensor.dtype == original.dtype and torch.equal(_bytes(tensor), _bytes(original))
    if not is_countable(tensor.dtype) or not is_countable(original.dtype):
        return torch.equal(tensor, original)
    own, other = tensor.to(torch.float64), original.to(torch.float64)
    return bool(((own == other) | (own.isnan() & other.isnan())).all())


def _key(tensor: Tensor) -> tuple[object, ...]:
    """What equal tensors have in common."""
    content = _bytes(tensor).numpy()
    return tensor.shape, tensor.dtype, hashlib.blake2b(content.data, digest_size=16).digest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def _achieved(checkpoint: CheckpointTensors) -> float | None:
    found = ACHIEVED.search(checkpoint.card or "")
    return float(found[1]) if found else None


def share_of_zeros(tensors: Iterable[InspectedTensor]) -> float:
    """Share of zeros among all weights of some matrices; 0 where there are none."""
    facts = [tensor.facts for tensor in tensors if tensor.facts is not None]
    return sum(own.zeros for own in facts) / max(sum(own.weights for own in facts), 1)


def by_kind(tensors: Iterable[InspectedTensor]) -> dict[str, list[InspectedTensor]]:
    """Tensors by kind, in the order in which kinds first appear."""
    kinds: dict[str, list[InspectedTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.kind, []).append(tensor)
    return kinds
