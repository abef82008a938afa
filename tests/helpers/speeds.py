"""A report of made-up speeds, whose numbers can be worked out in the head."""

from statprune.evaluation.speed_report import AGAINST, DENSE, Agreement, FormSpeed, SpeedPlan, SpeedReport, Timing

PLAN = SpeedPlan(batch_sizes=(1, 8), prompt_tokens=100, new_tokens=10, rounds=3)
MACHINE = {
    "date": "2026-11-28 01:00 UTC",
    "statprune": "0.1.0",
    "torch": "2.13.0",
    "device_name": "a processor",
    "threads": 2,
    "cores": 2,
    "load_average": 0.5,
}
SAME = Agreement(positions=45, largest=1e-5, relative=2e-6, top1=1.0, tolerance=1e-3)
OTHER = Agreement(positions=45, largest=3.0, relative=0.7, top1=0.25, tolerance=1e-3)


def timings(factor: float) -> tuple[Timing, ...]:
    """Seconds of the dense form times a factor; at batch 8 a pass takes four times as long."""
    return tuple(
        Timing(
            size,
            tuple(factor * scale * own for own in (1.0, 2.0, 4.0)),
            tuple(factor * scale * own for own in (0.5, 0.5, 1.0)),
            2**20 * size,
        )
        for size, scale in ((1, 1.0), (8, 4.0))
    )


def speed_report(factor: float = 2.0, agreement: Agreement | None = SAME) -> SpeedReport:
    """A dense form, its original, and a sparse form that takes ``factor`` times as long."""
    is_timed = agreement is None or agreement.is_same
    return SpeedReport(
        plan=PLAN,
        device="cpu",
        dtype="float32",
        attention="sdpa",
        prompts="the bundled evaluation text",
        prefill_logits="last",
        forms=(
            FormSpeed(DENSE, "pruned", 2**21, 2**21, timings=timings(1.0)),
            FormSpeed(AGAINST, "base", 2**21, 2**21, timings=timings(1.25)),
            FormSpeed(
                "csr",
                "pruned",
                2**21,
                2**20,
                converted=5,
                left={"it is too dense": 2},
                agreement=agreement,
                problem=None if is_timed else "its outputs differ from those of the same weights, dense",
                timings=timings(factor) if is_timed else (),
            ),
        ),
        missing={"2:4 cutlass": "it is for a CUDA GPU"},
    )
