"""Windows of random tokens."""

import torch
from torch import Tensor

from tests.helpers.families import VOCABULARY


def random_windows(samples: int, seq_len: int, lowest: int = 3, seed: int = 0) -> Tensor:
    """Token ids, (samples, seq_len); by default without the special tokens 0 to 2."""
    return torch.randint(lowest, VOCABULARY, (samples, seq_len), generator=torch.Generator().manual_seed(seed))
