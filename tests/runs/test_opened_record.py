"""What opening the model left out, or was warned of, stands in the run's log and in its record."""

import json
import logging

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from tests.helpers.checkpoints import change_weights
from tests.helpers.command import tiny_job
from tests.helpers.loading import saved
from tests.helpers.models import tiny_llama


def test_a_warning_about_the_model_is_in_log_and_record(tmp_path, caplog):
    model = LlamaForCausalLM(LlamaConfig(**(tiny_llama().config.to_dict() | {"tie_word_embeddings": True})))
    added = {"lm_head.weight": torch.zeros(97, 32), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    folder = change_weights(saved(model, tmp_path / "model"), lambda tensors: tensors.update(added))
    with caplog.at_level(logging.INFO, "statprune"):
        record = run(tiny_job(folder), tmp_path / "run")
    (warning,) = record.opened.warnings
    assert "we will NOT tie them" in warning
    assert f"transformers warns of this model: {warning}" in caplog.messages
    assert record.opened.ignored_tensors == 1 and record.opened.ignored[0] in added
    assert (
        f"LlamaForCausalLM leaves out 1 tensors of its checkpoint, such as {record.opened.ignored[0]}"
        in caplog.messages
    )
    values = json.loads((tmp_path / "run" / "result.json").read_text())
    assert RunRecord.from_json(values).opened == record.opened
