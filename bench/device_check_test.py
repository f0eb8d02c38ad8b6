"""That scripts/device_check.sh goes through all its parts without a GPU (--pretend), prints tables that can be read, and, where
a GPU is wanted and there is none, fails each part by name instead of calling skipped tests passed."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

SCRIPT = "scripts/device_check.sh"
BUILD = pathlib.Path(os.environ["RETORT_BINARY_DIR"])
DEPS = pathlib.Path(os.environ["RETORT_DEPS"])
PROGRAMS = ("launch/retort", "bench/bench_device", "tests/kernels/test_kernels", "tests/cuda_emulation/test_cuda_emulation")
PARTS = ("what there is", "kernels and loss layers beside this run's ceilings", "training steps beside this run's ceilings",
         "a recipe on both devices, in f32 and bf16", "operations on the device", "kernels beside their references",
         "compute-sanitizer")
# Each row of bench_device that a target or a claim of docs/cuda.md speaks of, and whether it has a target.
ROWS = {
    "RMS norm": True, "RMS norm, backward": True, "residual and RMS norm": True, "residual and RMS norm, backward": True,
    "layer norm": True, "layer norm, backward": True, "SwiGLU": True, "SwiGLU, backward": True, "GeGLU": True, "GeGLU, backward": True,
    "ReLU2 GLU": True, "ReLU2 GLU, backward": True, "rope on q and k": False,
    "embedding, backward": False, "tree sum": False, "cross-entropy, in place": False, "reverse KL, in place": False,
    "JSD, in place": False, "skew forward KL, in place": False, "skew reverse KL, in place": False, "total variation, in place": False,
    "adaptive KL, in place": False, "logit MSE, in place": False, "64 labels a row, in place": False, "AdamW": True,
    "AdamW and its bf16 copy": True, "AdamW and its copy on q8_0": True,
    "linear and cross-entropy, both ways; peer: bare products": True,
    "linear and cross-entropy, memory at 1 and 4 times the tokens": True,
    "linear, forward KL and cross-entropy, both ways; peer: bare products": True,
    "linear, forward KL and cross-entropy, memory at 1 and 4 times the tokens": True,
    "attention in documents, both ways; peer: mask": False,
    "tiny stand-in for GPT-2 small, 124M": True, "tiny stand-in for GPT-2 small, 124M, graphs": True,
    "tiny stand-in for GPT-2 small on q4_0, graphs; peer: plain": True,
    "tiny stand-in for GPT-2 small taught by medium, 355M, graphs; peer: plain": True,
    "tiny stand-in for TinyLlama, 1.1B": True, "tiny stand-in for TinyLlama, 1.1B, graphs": True,
}
UNSUPPORTED = '========= Error: Device not supported. Please refer to the "Supported Devices" section of the documentation'
HEAD = ["what", "shape", "error", "ms", "rate", "of the ceiling", "ours / peer", "target", "reached"]


def check(held, what, output):
    if not held:
        sys.exit(f"{output}\ndevice_check_test: {what}")


def run(arguments, **environment):
    ran = subprocess.run([SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env=os.environ | environment)
    return ran.returncode, ran.stdout


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def results(output):
    """How each part ended, by the last table."""
    last = output[output.index("## all parts"):]
    rows = [cells(line) for line in last.splitlines() if line.startswith("| ")]
    return {name: how for name, how, _ in rows[1:]}


def expect_documented(output):
    """The parts' seconds are those of docs/cuda.md, and fit together; the first has time to read LibTorch from a cold disk."""
    line = next(line for line in output.splitlines() if line.startswith("seconds that parts may take: "))
    given = {name: int(most) for name, most in (part.split(":") for part in line.split(": ", 1)[1].split(";")[0].split())}
    rows = [cells(row) for row in pathlib.Path("docs/cuda.md").read_text().splitlines() if row.startswith("| `")]
    told = {row[0].strip("`"): int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit()}
    check(given == told, f"the parts have {given} s, and docs/cuda.md says {told}", output)
    check(sum(given.values()) <= 290 and given["what"] >= 30, f"{given} s", output)


def pretended():
    code, output = run(["--pretend"])
    expect_documented(output)
    check(code == 0, f"--pretend exits with {code}", output)
    ended = results(output)
    check(tuple(ended) == PARTS, f"parts are {list(ended)}", output)
    for name, how in ended.items():
        check(f"\n{name}: {how} in " in output, f"{name} did not say how it ended when it did", output)
        check(how == ("SKIPPED" if name in PARTS[4:] else "passed"), f"{name}: {how}", output)
    check("skipped: without a GPU" in output, "nothing says why compute-sanitizer was skipped", output)
    check("times, shares and targets mean nothing" in output, "the table does not say that it is pretended", output)
    limits = sum(int(n) for n in re.findall(r"[a-z]+:(\d+)", re.search(r"parts may take: (.*);", output)[1]))
    check(limits < 300, f"the parts may take {limits} s", output)
    table = [cells(line) for line in output.splitlines() if line.startswith("| ")]
    rows = {row[0]: row for row in table if len(row) == len(HEAD)}
    check(rows.pop("what", None) == HEAD, "the table's head is another", output)
    for name, has_target in ROWS.items():
        check(name in rows, f"there is no row '{name}'", output)
        target, reached = rows[name][-2:]
        form = r"(>=|<=) [\d.]+ (% of|x) .+" if has_target else "-"
        check(re.fullmatch(form, target), f"'{name}' has the target '{target}'", output)
        check(re.fullmatch(r"(met|missed): [\d.]+ [%x]" if has_target else "-", reached), f"'{name}' has reached '{reached}'", output)
        if "memory" not in name:
            check(re.fullmatch(r"\d\.\de[+-]\d\d", rows[name][2]), f"the error of '{name}' is '{rows[name][2]}'", output)
    check(len(re.findall(r"\d+ rows: 0 wrong", output)) == 2, "a result is wrong", output)


def without_a_gpu(folder):
    """As on the machine that has one, where CUDA does not load."""
    pack = pathlib.Path(folder) / "pack"
    (pack / "bin").mkdir(parents=True)
    for program in PROGRAMS:
        (pack / "bin" / pathlib.Path(program).name).symlink_to(BUILD / program)
    (pack / "torch_version.py").write_bytes((DEPS / "torch/version.py").read_bytes())
    here = {"PACK": str(pack), "PYTHONPATH": str(DEPS), "RETORT_CUDA_PLUGIN": str(pack / "none.so")}
    wanted = ["what", "kernels", "steps", "operations", "references", "sanitizer"]

    code, output = run(wanted, **here, PATH="/usr/bin:/bin:" + os.environ["PATH"])
    ended = results(output)
    check(code == 1, f"it exits with {code}", output)
    for name in PARTS[:3] + PARTS[4:6]:
        check(ended[name].startswith("FAILED"), f"{name}: {ended[name]}", output)
    check(output.count("failed, as tests were skipped: Cuda") == 2, "skipped tests are not named", output)

    tool = pathlib.Path(folder) / "compute-sanitizer"
    for does, part, limit in (('while [ "${1#--}" != "$1" ]; do case $1 in --tool|--error-exitcode) shift;; esac; shift; done; exec "$@"',
                               "FAILED (1)", "290"), ("exec sleep 20", "CUT OFF, nothing wrong until then", "8"),
                              (f"echo '{UNSUPPORTED}'; exit 1", "SKIPPED", "290"),
                              (f"echo '{UNSUPPORTED}'; echo '[  FAILED  ] CudaRope.Turns'; exit 1", "FAILED (1)", "290")):
        tool.write_text(f"#!/bin/sh\n{does}\n")
        tool.chmod(0o755)
        code, output = run(["sanitizer"], **here, LIMIT=limit, PATH=f"{folder}:{os.environ['PATH']}")
        check(results(output)["compute-sanitizer"] == part, f"compute-sanitizer that does '{does}' is not {part}", output)


def main():
    with tempfile.TemporaryDirectory() as folder:
        without_a_gpu(folder)
    for arguments in (["--pretend", "nonsense"], ["--nonsense"]):
        code, output = run(arguments)
        check(code == 2 and "unknown argument" in output, f"{arguments} exits with {code}", output)
    pretended()


if __name__ == "__main__":
    main()
