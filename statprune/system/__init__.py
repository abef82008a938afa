"""What touches the machine: devices, processes, memory, files, time, the network and the terminal."""

import logging

# transformers imports torchao where it is installed, and torchao tells of every extension that is for another machine
for _library in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_library).setLevel(logging.ERROR)
