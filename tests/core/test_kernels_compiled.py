"""Every kernel compiles for GPUs, on a machine that has none: the interpreter takes what a compiler refuses."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from statprune.core import gram_triton, selection_triton, sparsegpt_triton, statistics_triton

ROOM = {80: 166912, 90: 232448}  # bytes of shared memory that a block can have on an A100, an H100 or an H200

def compiled(kernel, capability, constants, types, fits=True, **options):
    target = GPUTarget("cuda", capability, 32)

    def build(constants, divisible):
        names = kernel.arg_names
        signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        values = {(names.index(name),): value for name, value in constants.items()}
        attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in divisible}
        built = triton.compile(ASTSource(kernel, signature, values, attributes), target=target, options=options)
        assert len(built.asm["cubin"]) > 0, kernel
        assert not fits or built.metadata.shared <= ROOM[capability], (kernel, constants, built.metadata.shared)

    build(constants, ())
    # as launches specialise it: sizes and strides that 16 divides, and sizes that are 1
    sizes = [own.name for own in kernel.params if own.name not in {*types, *constants} and not own.do_not_specialize]
    pointers = [name for name in kernel.arg_names if name in types]
    build(constants, [*pointers, *sizes])
    if capability == 90:
        for size in sizes:
            build(constants | {size: 1}, [*pointers, *(name for name in sizes if name != size)])
    print("compiled")

scores = {"score_ptr": "*fp32", "threshold_ptr": "*fp32", "chosen_ptr": "*i1"}
counts = {"counts_ptr": "*i64", "totals_ptr": "*i64", "before_ptr": "*i64"}
solving = {"block_ptr": "*fp32", "factor_ptr": "*fp32", "keep_ptr": "*i1", "errors_ptr": "*fp32"}
for capability in (80, 90):
    for width in (64, 16384):
        compiled(selection_triton._rows_kernel, capability, {"width": width}, scores)
    for kernel in (selection_triton._count_kernel, selection_triton._choose_kernel):
        compiled(kernel, capability, {"entries": 4096}, scores | counts)
    for dtype in ("bf16", "fp32"):
        types = {"rows_ptr": f"*{dtype}", "shift_ptr": "*fp64", "sums_ptr": "*fp64"}
        tiles = {"program_rows": 512, "row_tile": 16, "channel_tile": 128}
        compiled(statistics_triton._moments_kernel, capability, tiles, types)
    for depth, stages in gram_triton._SHAPES:
        tiles = {"tile": gram_triton.TILE, "depth": depth, "steps": gram_triton._STEPS}
        types = {"inputs_ptr": "*bf16", "gram_ptr": "*fp64"}
        fits = gram_triton.room_needed(depth, stages) <= ROOM[capability]
        compiled(gram_triton._products_kernel, capability, tiles, types, fits, num_warps=8, num_stages=stages)
    for n, m in ((0, 0), (2, 4)):
        tiles = {"n": n, "m": m, "row_tile": 4, "column_tile": 128}
        compiled(sparsegpt_triton._columns_kernel, capability, tiles, solving, num_warps=1, enable_fp_fusion=False)
"""


@pytest.mark.long
def test_every_kernel_compiles_for_ampere_and_hopper():
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("compiled") == 2 * 11
