"""The table of bench/cuda_static.sh, from what ptxas and nvdisasm say of every cubin."""

import math
import pathlib
import re
import subprocess
import sys

REGISTERS, WARPS, BLOCKS = 65536, 64, 32
SHARED = {"80": 164 << 10, "90a": 228 << 10, "100": 228 << 10}  # of a processor; a block has 1 KB to itself
BANDWIDTHS = (3.0e12, 4.3e12)


def short(name):
    """`rms_norm:forward<Bf16,RowPlan<256,1,8>,false>` of a demangled name."""
    name = name.replace("__nv_bfloat16", "Bf16").replace("(anonymous namespace)::", "")
    name = re.sub(r"retort::kernels::(cuda::(device::)?)?", "", name)
    name = re.sub(r"^void ", "", name)
    depth, end = 0, len(name)
    for at, letter in enumerate(name):  # the parameters begin at the first bracket outside of <>
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            end = at
            break
    return re.sub(r"\(int\)|\(bool\)|\s", "", name[:end]).replace("(Fit)", "Fit:")


def width(instruction):
    """Bytes of one access."""
    for mark, size in ((".256", 32), (".128", 16), (".64", 8), (".U16", 2), (".S16", 2), (".U8", 1), (".S8", 1)):
        if mark in instruction:
            return size
    return 4


class Kernel:
    def __init__(self):
        self.name, self.registers, self.stack, self.shared, self.spills, self.generic = "", 0, 0, 0, 0, 0
        self.loads, self.stores = {}, {}


def read(folder, architecture):
    """All kernels of an architecture by their short name, its file before a colon."""
    kernels = {}
    for path in sorted(pathlib.Path(folder).glob(f"*.{architecture}.cubin")):
        mangled, current = {}, None
        for line in pathlib.Path(f"{path}.usage").read_text().splitlines():
            if match := re.search(r"Compiling entry function '(\w+)'", line):
                current = mangled[match[1]] = Kernel()
            elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                current.stack = int(match[1])
            elif match := re.search(r"Used (\d+) registers", line):
                current.registers = int(match[1])
                current.shared = int((re.search(r"(\d+) bytes smem", line) or [0, 0])[1])
        for line in pathlib.Path(f"{path}.sass").read_text().splitlines():
            if match := re.match(r"\.text\.(\w+):$", line):
                current = mangled[match[1]]
            elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9.]+)", line):
                count(current, match[1])
        names = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True)
        for kernel, name in zip(mangled.values(), names.stdout.splitlines()):
            kernel.name = path.name.split(".")[0] + ":" + short(name)
            kernels[kernel.name] = kernel
    return kernels


def count(kernel, instruction):
    name = instruction.split(".")[0]
    if name in ("LDL", "STL"):
        kernel.spills += 1
    elif name in ("LD", "ST"):
        kernel.generic += 1
    elif name in ("LDG", "STG"):
        table = kernel.loads if name == "LDG" else kernel.stores
        table[width(instruction)] = table.get(width(instruction), 0) + 1


def occupancy(kernel, threads, dynamic, architecture):
    """Warps that a processor holds, of 64."""
    warps = -(-threads // 32)
    of_warp = -(-kernel.registers * 32 // 256) * 256
    limits = [BLOCKS, WARPS // warps, REGISTERS // of_warp // warps]
    limits.append(SHARED[architecture] // (kernel.shared + dynamic + 1024))
    return min(limits) * warps


def rows():
    for line in pathlib.Path("bench/cuda_kernels.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words


def widths(table):
    return " ".join(f"{table[size]}x{size}" for size in sorted(table, reverse=True)) or "-"


def at_least(table):
    return sum(number for size, number in table.items() if size >= 16)


def print_row(kernel, words, architecture):
    """Prints a row and gives what is wrong with it."""
    name, threads, loads, stores, narrow, elements, size, floor = words
    threads, _, dynamic = threads.partition("+")
    held = occupancy(kernel, int(threads), int(dynamic or 0), architecture)
    amount = math.prod(int(factor) for factor in elements.split("*"))
    least = float(size.split("/")[0]) * amount
    times = " ".join(f"{least / bandwidth * 1e6:8.0f}" for bandwidth in BANDWIDTHS)
    print(
        f"{name:52} {kernel.registers:4} {kernel.shared:6} {kernel.spills:4} {held:3}/64  "
        f"{widths(kernel.loads):16} {widths(kernel.stores):16} {size:>5} {floor:>5} {times}"
    )
    small = sum(sum(table.values()) - at_least(table) for table in (kernel.loads, kernel.stores))
    if at_least(kernel.loads) < int(loads) or at_least(kernel.stores) < int(stores) or small > int(narrow):
        yield (
            f"sm_{architecture} {name}: {at_least(kernel.loads)} wide loads of {loads}, "
            f"{at_least(kernel.stores)} wide stores of {stores}, {small} narrow of at most {narrow}"
        )


def main(arguments):
    everything = "--all" in arguments
    folder, *architectures = [a for a in arguments if a != "--all"]
    problems = []
    for architecture in architectures:
        kernels = read(folder, architecture)
        if not kernels:
            problems.append(f"sm_{architecture}: no kernels were found")
        print(f"\nsm_{architecture}: {len(kernels)} kernels, not run; us at 3.0 and 4.3 TB/s from the bytes alone")
        print(
            f"{'kernel':52} {'regs':>4} {'shared':>6} {'spill':>4} warps  {'loads':16} {'stores':16} "
            f"{'bytes':>5} {'floor':>5} {'3.0 TB/s':>8} {'4.3 TB/s':>8}"
        )
        for words in rows():
            if words[0] in kernels:
                problems += print_row(kernels[words[0]], words, architecture)
            else:
                problems.append(f"sm_{architecture}: no kernel is called {words[0]}")
        for kernel in kernels.values():
            if kernel.spills or kernel.stack:
                problems.append(f"sm_{architecture} {kernel.name}: {kernel.spills} spills, a frame of {kernel.stack}")
            if kernel.generic:
                problems.append(f"sm_{architecture} {kernel.name}: {kernel.generic} accesses of unknown space")
        if everything:
            for kernel in kernels.values():
                print(f"  {kernel.name} {kernel.registers} regs, {widths(kernel.loads)}; {widths(kernel.stores)}")
    for problem in problems:
        print("FAILED", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
