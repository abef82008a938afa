"""Tiny random models of every family, from the families' own configuration classes."""

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

VOCABULARY = 97
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

# configuration class → what differs from COMMON; None leaves a key to the class
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "MistralConfig": {"sliding_window": 8},
    "Qwen2Config": {},
    "Qwen3Config": {"head_dim": 8},
    "Gemma2Config": {"head_dim": 8, "sliding_window": 8},
    "Gemma3TextConfig": {
        "head_dim": 8,
        "sliding_window": 8,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "Phi3Config": {},
    "OPTConfig": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "GPT2Config": {"n_positions": 128},
    "GPTNeoXConfig": {},
    "FalconConfig": {"new_decoder_architecture": False, "multi_query": True},
    "BloomConfig": {"n_head": 4},
    "StableLmConfig": {},
    "Olmo2Config": {},
    "GraniteConfig": {},
    "CohereConfig": {},
    "SmolLM3Config": {},
    "GptOssConfig": {
        "head_dim": 8,
        "sliding_window": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "MixtralConfig": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3MoeConfig": {"head_dim": 8, **EXPERTS},
    "OlmoeConfig": {"num_experts": 6, "num_experts_per_tok": 2},
    "DeepseekV3Config": {
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}

# what breaks assumptions: the same checks of the walk, and what is left is named
UNUSUAL: dict[str, dict[str, Any]] = {
    "OpenAIGPTConfig": {"n_positions": 128},  # blocks return lists
    "CTRLConfig": {"dff": 48, "n_positions": 128},  # blocks return tuples with None
    "Gemma3nTextConfig": {  # hidden states are (streams, windows, tokens, features)
        "head_dim": 8,
        "sliding_window": 8,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "laurel_rank": 8,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": None,
    },
    "Llama4TextConfig": {  # all experts in one batched product, inputs of others zero
        "head_dim": 8,
        "intermediate_size_mlp": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 16,
    },
    "JetMoeConfig": {"kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},  # attention is a mixture, too
    "MambaConfig": {"state_size": 8},  # no attention
    "Qwen3NextConfig": {  # linear attention beside full, a gate with one output
        **EXPERTS,
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "BartConfig": {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "d_model": 32},
}


def tiny_model(name: str) -> Any:
    """A random model of the family, two blocks or more, with weights that make its blocks matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**(COMMON | (FAMILIES | UNUSUAL)[name])))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.2)
    return model.eval()


class Model(nn.Module):
    """As little as a causal language model needs, from a list of blocks."""

    def __init__(self, *blocks, hidden=16):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layers = nn.Embedding(VOCABULARY, hidden), nn.ModuleList(blocks)
        self.device, self.config = torch.device("cpu"), SimpleNamespace()
        self.eval()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, use_cache=False):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return SimpleNamespace(logits=hidden @ self.embed.weight.T)
