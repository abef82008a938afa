"""Evaluation windows on their way through a run's model: losses, and fidelity to the model as it was before pruning.

Several processes share the windows of each dataset.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.evaluation.fidelity import WindowFidelity, WindowResults
from statprune.evaluation.last_states import FidelityMeter, keeping_last_states, last_states
from statprune.evaluation.perplexity import OnLogits, batches_after_blocks, losses_after_blocks, window_losses
from statprune.runs.context import RunContext
from statprune.runs.prepare import Prepared
from statprune.system.console import progress
from statprune.system.distributed import gathered, own_part
from statprune.system.timing import phase
from statprune.walk.activations import StoredHidden, hidden_store

log = logging.getLogger(__name__)
TOLERANCE = 1e-3  # relative: a loss that differs more is not that of the same logits

States = dict[str, list[StoredHidden]]  # of this process's windows, by dataset, a store for each batch


@dataclass(frozen=True)
class _Pass:
    """One model and the windows of one dataset.

    Attributes:
        context: the run.
        prepared: its inputs.
        name: of the model for people: dense, pruned, ...
        source: the dataset.
    """

    context: RunContext
    prepared: Prepared
    name: str
    source: str

    @property
    def ids(self) -> Tensor:
        """The windows of this process."""
        ids = self.prepared.evaluation[self.source].ids
        return ids[own_part(len(ids))]

    def measure(self, states: States | None = None, on_logits: OnLogits | None = None) -> Tensor:
        """Losses of this process's windows.

        Args:
            states: takes the last hidden states.
            on_logits: sees each batch's logits.
        """
        ids, model, blocks = self.ids, self.prepared.model, self.prepared.blocks
        batch_size = self.context.config.evaluation.batch_size
        keep = hidden_store(self.prepared.memory.kept, self.context.folder)
        with progress(f"{self.name} perplexity on {self.source}", len(ids)) as advance:
            if not len(ids):
                if states is not None:
                    states[self.source] = []
                return torch.empty(0, dtype=torch.float64, device="cpu")
            if self.prepared.loaded.streamer is None:
                if states is None:
                    return window_losses(model, ids, batch_size, advance, on_logits)
                with keeping_last_states(blocks, keep) as kept:
                    losses = window_losses(model, ids, batch_size, advance, on_logits)
                states[self.source] = kept
                return losses
            store = hidden_store(self.prepared.memory.placement, self.context.folder)
            batches = batches_after_blocks(model, blocks, ids, batch_size, store, advance)
            losses = losses_after_blocks(model, blocks, batches, ids, on_logits)
            if states is not None:
                states[self.source] = self._kept([batch.stored for batch in batches])
            advance(len(ids))
        return losses

    def states(self) -> list[StoredHidden]:
        """The last hidden states of this process's windows, without losses."""
        ids, model, blocks = self.ids, self.prepared.model, self.prepared.blocks
        batch_size = self.context.config.evaluation.batch_size
        with progress(f"dense predictions on {self.source}", len(ids)) as advance:
            if not len(ids):
                return []
            if self.prepared.loaded.streamer is None:
                keep = hidden_store(self.prepared.memory.kept, self.context.folder)
                return last_states(model, blocks, ids, batch_size, keep, advance)
            store = hidden_store(self.prepared.memory.placement, self.context.folder)
            batches = batches_after_blocks(model, blocks, ids, batch_size, store, advance)
            advance(len(ids))
        return self._kept([batch.stored for batch in batches])

    def _kept(self, stored: list[StoredHidden]) -> list[StoredHidden]:
        """The same hidden states where those of the dense model wait."""
        memory = self.prepared.memory
        if memory.kept is memory.placement:
            return stored
        keep = hidden_store(memory.kept, self.context.folder)
        return [keep(stored.pop(0).get()) for _ in range(len(stored))]


def dense_losses(context: RunContext, prepared: Prepared, states: States | None) -> dict[str, Tensor]:
    """The dense model's window losses by dataset.

    Args:
        context: the run.
        prepared: its inputs; the model is dense.
        states: takes its last hidden states; None: nobody needs them.
    """
    return {
        source: torch.cat(gathered(_Pass(context, prepared, "dense", source).measure(states)))
        for source in prepared.evaluation
    }


def dense_states(context: RunContext, prepared: Prepared) -> States:
    """The dense model's last hidden states, where its losses need not be measured."""
    return {source: _Pass(context, prepared, "dense", source).states() for source in prepared.evaluation}


def window_results(
    context: RunContext,
    prepared: Prepared,
    dense: Mapping[str, Tensor],
    states: States | None,
    name: str = "pruned",
    keeps_states: bool = False,
) -> WindowResults:
    """What the windows of the pruned or quantised model measure.

    Args:
        context: the run.
        prepared: its inputs; the model is pruned or quantised now.
        dense: the dense model's losses.
        states: its last hidden states; None: no fidelity is measured.
        name: what people call the model.
        keeps_states: another model needs them, too; else each dataset's are let go of once they are compared.
    """
    with phase(context.seconds, "evaluate"):
        if states is None:
            return WindowResults(pruned_losses(context, prepared, name), None)
        own = dict(states) if keeps_states else states
        return WindowResults(*pruned_losses_and_fidelity(context, prepared, dense, own, name))


def pruned_losses(context: RunContext, prepared: Prepared, name: str = "pruned") -> dict[str, Tensor]:
    """The pruned or quantised model's window losses by dataset; ``name`` is what people call it."""
    return {
        source: torch.cat(gathered(_Pass(context, prepared, name, source).measure())) for source in prepared.evaluation
    }


def pruned_losses_and_fidelity(
    context: RunContext, prepared: Prepared, dense: Mapping[str, Tensor], states: States, name: str = "pruned"
) -> tuple[dict[str, Tensor], dict[str, WindowFidelity]]:
    """The pruned or quantised model's window losses, and its fidelity to the dense model, by dataset.

    Args:
        context: the run.
        prepared: its inputs; the model is pruned or quantised now.
        dense: the dense model's losses.
        states: its last hidden states; each dataset's are let go of once they are compared.
        name: what people call the model.
    """
    losses, fidelities = {}, {}
    for source in prepared.evaluation:
        meter = FidelityMeter(prepared.model, prepared.blocks, states.pop(source, []))
        own = _Pass(context, prepared, name, source).measure(on_logits=meter)
        losses[source] = torch.cat(gathered(own))
        again = torch.cat(gathered(meter.dense_losses))
        fidelity = WindowFidelity(
            torch.cat(gathered(meter.fidelity.divergence)), torch.cat(gathered(meter.fidelity.agreement))
        )
        if not torch.allclose(again, dense[source], TOLERANCE, equal_nan=True):
            log.warning(
                "fidelity on %s is not recorded: %s's predictions can't be made again from what its last block puts "
                "out; give evaluation.fidelity=false to save the work",
                source,
                type(prepared.model).__name__,
            )
            continue
        fidelities[source] = fidelity
    return losses, fidelities
