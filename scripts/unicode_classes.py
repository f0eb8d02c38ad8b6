#!/usr/bin/env python3
"""Writes data/unicode_classes.inc: letters (\\p{L}) and numbers (\\p{N}) as ranges of code points.

usage: unicode_classes.py >data/unicode_classes.inc     (needs PyPI's tokenizers)

The classes are asked of the regular expressions of Hugging Face's tokenizers, whose splits ours must equal: their
Unicode version (16.0 in tokenizers 0.23) is newer than Debian's libraries.
"""
import tokenizers
from tokenizers import Regex, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(name):
    split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed")
    found, out = [c for c in CODE_POINTS if not split.pre_tokenize_str(chr(c))], []
    for c in found:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


print(f"// Made by scripts/unicode_classes.py with tokenizers {tokenizers.__version__}. First and last of each range.")
for constant, name in (("kLetters", "L"), ("kNumbers", "N")):
    cells = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(name)]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) > 108:
            lines.append(line)
            line = "   "
        line += " " + cell
    print(f"constexpr CodePointRange {constant}[] = {{")
    print("\n".join(lines + [line]))
    print("};")
