"""``statprune bench``: how fast a model computes on this machine, dense and in the sparse forms that there are."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.cli.interrupts import interrupts
from statprune.cli.outputs import check_folder

if TYPE_CHECKING:
    import torch

    from statprune.evaluation.speed_report import SpeedPlan

EXAMPLE = "statprune bench outputs/default/RUN/model --against BASE --batch-sizes 1,8 --device cuda --dtype bfloat16"
DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder of a model or run, compressed folder, .gguf, hub id or pkg://package/file",
    )
    parser.add_argument("--against", metavar="DENSE", help="another model, whose dense weights are timed beside it")
    parser.add_argument("--batch-sizes", default="1,4", metavar="N,N", help="sequences at a time; 1,4")
    parser.add_argument("--prompt-tokens", type=int, default=128, metavar="N", help="of each prompt; 128")
    parser.add_argument("--new-tokens", type=int, default=32, metavar="N", help="greedy steps after it, 0 for none; 32")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often each form is timed; 5")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:1; auto")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights; auto: the checkpoint's own")
    parser.add_argument(
        "--tolerance", type=float, help="relative difference of logits at which a form counts as the same; by dtype"
    )
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="draw speed.png and .pdf there")
    parser.add_argument("--json", action="store_true", help="print all facts as JSON")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out; returns 1 where a form computes something else than the dense weights, or those no numbers.

    Raises:
        StatpruneError: an argument makes no sense, a model can't be opened, or the picture can't be written.
    """
    plan = _plan(options)
    check_folder(options.picture, "--picture")
    # slow to import: not for --help
    from statprune.analysis.speed_text import print_speed, to_json
    from statprune.evaluation.speed import measure_speed
    from statprune.system.console import configure_logging, progress

    configure_logging(verbose=False)
    device = _device(options.device)
    machine = _machine(device)
    interrupts.raise_error()  # a compressed model has a dense copy to remove from now on
    with progress("passes in percent", 100) as done:
        report = measure_speed(
            options.model,
            options.against,
            plan,
            options.dtype,
            device,
            lambda number, count: done(100 * number // count),
        )
    if options.json:
        print(to_json(report, machine))
    else:
        print_speed(report, machine)
    if options.picture is not None:
        from statprune.analysis.speed_figure import draw_speed

        print(*draw_speed(report, options.picture), sep="\n", file=sys.stderr)
    return 1 if any(form.agreement is not None and not form.agreement.is_same for form in report.forms) else 0


def _plan(options: argparse.Namespace) -> "SpeedPlan":
    """What is measured.

    Raises:
        StatpruneError: an argument makes no sense.
    """
    from statprune.errors import StatpruneError
    from statprune.evaluation.speed_report import SpeedPlan

    parts = [part.strip() for part in options.batch_sizes.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise StatpruneError(
            f"--batch-sizes {options.batch_sizes} is no list of different sizes; give whole numbers from 1 on with "
            "commas between them, such as 1,8"
        )
    least = {"prompt_tokens": 1, "new_tokens": 0, "rounds": 1}
    for name, low in least.items():
        if getattr(options, name) < low:
            flag = name.replace("_", "-")
            raise StatpruneError(f"--{flag} {getattr(options, name)} is too few; give {low} or more")
    if options.tolerance is not None and not 0 <= options.tolerance < 1:
        raise StatpruneError(f"--tolerance {options.tolerance} is no relative difference; give one from 0 to below 1")
    sizes = tuple(int(part) for part in parts)
    return SpeedPlan(sizes, options.prompt_tokens, options.new_tokens, options.rounds, options.tolerance)


def _device(name: str) -> "torch.device":
    """The device of that name.

    Raises:
        StatpruneError: this machine has none.
    """
    from statprune.errors import StatpruneError
    from statprune.system.devices import ABSENT, UNKNOWN, UNSUPPORTED, choose_device, device_complaint

    instead = {
        UNKNOWN: "auto, cpu, cuda or cuda:1",
        UNSUPPORTED: "auto, cpu or cuda",
        ABSENT: "cpu or a CUDA device of this machine",
    }
    if (complaint := device_complaint(name)) is not None:
        raise StatpruneError(f"--device {name} {complaint}; give {instead[complaint]}")
    return choose_device(name)


def _machine(device: "torch.device") -> dict[str, object]:
    """What the numbers depend on besides the models."""
    import os
    from dataclasses import asdict

    import torch

    from statprune.runs.environment import describe_environment
    from statprune.system.processor import load_average, processor_name

    own = describe_environment(device)
    is_gpu = device.type == "cuda"
    cpu = processor_name()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "statprune": own.packages["statprune"],
        "torch": torch.__version__,
        "device_name": own.device if is_gpu else cpu,
        "cpu": cpu,
        "gpu": own.device if is_gpu else None,
        "compute_capability": list(torch.cuda.get_device_capability(device)) if is_gpu else None,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "threads": own.threads,
        "load_average": load_average(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "environment": asdict(own),
    }
