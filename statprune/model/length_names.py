"""What configurations call the longest input of a model."""

# names of a model's longest input: by far the most common ones, and those of a few families
COMMON_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
OTHER_LENGTHS = (
    "n_ctx",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "seq_len",
    "context_length",
    "max_target_positions",
    "model_max_length",
    "block_size",
    "context_size",
    "ctx_len",
    "max_position",
    "max_positions",
    "sequence_length",
)
