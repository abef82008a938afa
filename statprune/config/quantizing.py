"""What is wrong with the section ``quantize`` that shows without the model."""

from statprune.config.choices import NONE
from statprune.config.sections import EvaluationConfig, Offload, QuantizeConfig, Settings
from statprune.model.quantization import BITS, library_version
from statprune.system.extras import install_command

EXTRA = "quantize"


def quantize_problems(quantize: QuantizeConfig, settings: Settings, evaluation: EvaluationConfig) -> list[str]:
    """A sentence for everything wrong."""
    name, size = quantize.name, quantize.group_size
    if name == NONE:
        unused = f"quantize.group_size={size} has no effect with quantize=none; leave it out"
        return [] if size is None else [unused]
    if name not in BITS:
        return [f"quantize.name={name} is unknown; choose one of {', '.join((NONE, *BITS))}"]
    problems = []
    if size is not None and size < 1:
        problems.append(f"quantize.group_size={size} is too small; give at least 1, or null for a scale per row")
    if library_version() is None:
        problems.append(f"quantize={name} needs a package that is not installed; run {install_command(EXTRA)}")
    if not evaluation.datasets:
        problems.append(
            f"quantize={name} has no effect where evaluation.datasets is empty, since quantised models are asked no "
            "tasks; name a dataset, or give quantize=none"
        )
    if settings.offload is not Offload.none:
        problems.append(
            f"quantize={name} needs all weights on the device, and offload={settings.offload.value} streams them; "
            "give offload=none, or quantize=none"
        )
    return problems
