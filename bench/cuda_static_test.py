"""That bench/cuda_static.py fails on what it is there for: a spill, a narrow load, a kernel that is gone."""

import contextlib
import io
import pathlib
import sys
import tempfile

import cuda_static

NAME = "_ZN6retort7kernels4cuda6device6kernelEPKf"  # retort::kernels::cuda::device::kernel(float const*)
USAGE = """ptxas info    : Compiling entry function '{name}' for 'sm_90a'
ptxas info    : Function properties for {name}
    {frame} bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 2048 bytes smem
"""
WIDE = ["LDG.E.128.CONSTANT R4, [R2.64] ;", "@P0 LDG.E.128 R8, [R2.64+0x10] ;", "STG.E.128 [R2.64], R4 ;"]
ROW = ["file:kernel", "256", "2", "1", "0", "1000000", "4", "4"]


def verdict(instructions, rows, frame=0):
    """What is printed, and the exit code, for one kernel of these instructions."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "file.90a.cubin"
        cubin.touch()
        pathlib.Path(f"{cubin}.usage").write_text(USAGE.format(name=NAME, frame=frame, spills=frame))
        sass = [f".text.{NAME}:"] + [f"        /*{16 * i:04x}*/                   {text}" for i, text in enumerate(instructions)]
        pathlib.Path(f"{cubin}.sass").write_text("\n".join(sass) + "\n")
        cuda_static.rows = lambda: iter(rows)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = cuda_static.main([folder, "90a"])
        return code, printed.getvalue()


def expect(what, code, text, case):
    got, printed = case
    if got != code or text not in printed:
        print(f"{what}: expected {code} and {text!r}, got {got} and\n{printed}")
        sys.exit(1)


expect("sound", 0, "64/64  2x16             1x16", verdict(WIDE, [ROW]))
expect("spill", 1, "FAILED sm_90a file:kernel: 1 spills, a frame of 8", verdict(WIDE + ["STL [R1], R4 ;"], [ROW], 8))
expect("narrow", 1, "1 wide loads of 2, 1 wide stores of 1, 1 narrow of at most 0",
       verdict(["LDG.E R4, [R2.64] ;"] + WIDE[1:], [ROW]))
expect("unknown space", 1, "1 accesses of unknown space", verdict(WIDE + ["LD.E R4, [R2.64] ;"], [ROW]))
expect("gone", 1, "no kernel is called file:other", verdict(WIDE, [["file:other"] + ROW[1:]]))
print("the rules hold")
