"""What a processor is called, and how busy it is."""

import os
import platform
import re
from pathlib import Path


def processor_name() -> str:
    """The CPU's product name, or its architecture where the system does not tell."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def load_average() -> float | None:
    """How many processes wanted to compute during the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
