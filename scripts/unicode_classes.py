#!/usr/bin/env python3
"""Writes data/tokenizers/unicode_classes.inc: letters (\\p{L}), numbers (\\p{N}), word characters (\\w) and what NFC passes over, as
ranges of code points.

usage: unicode_classes.py >data/tokenizers/unicode_classes.inc     (needs PyPI's tokenizers and unicodedata2)

All is asked of Hugging Face's tokenizers, whose ids ours must equal. Their regular expressions are of a Unicode (16.0 in
tokenizers 0.23) newer than Debian's libraries, their NFC of an older one (9.0): marks and compositions that came later,
which unicodedata2 knows, are characters like any other to it.
"""
import tokenizers
import unicodedata2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def of_class(name):
    split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed")
    return [c for c in CODE_POINTS if not split.pre_tokenize_str(chr(c))]


def words():
    """What an added token of a single word may not stand beside: the \\w of another engine than that of patterns."""
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    tokenizer.add_tokens([AddedToken("|", single_word=True)])
    return [c for c, text in zip(CODE_POINTS, tokenizer.encode_batch([chr(c) + "|" for c in CODE_POINTS]))
            if not text.ids]


def passed_over():
    """What takes part in a later Unicode's decompositions or reorderings and in none of theirs."""
    theirs, later = normalizers.NFD(), unicodedata2.normalize
    # One mark of each of four classes, before and after: a mark that is none to them leaves its order alone.
    probes = ["{}"] + [form for mark in "\u0301\u0316\u0334\u0345" for form in ("a{}" + mark, "a" + mark + "{}")]
    found = {c for c in CODE_POINTS if any(theirs.normalize_str(t) != later("NFD", t)
                                           for t in (probe.format(chr(c)) for probe in probes))}
    parts = {ord(part) for c in found for part in later("NFD", chr(c))}
    return sorted(found | {c for c in parts if theirs.normalize_str("\u0345" + chr(c)) == "\u0345" + chr(c)})


def ranges(found):
    out = []
    for c in found:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


print(f"// Made by scripts/unicode_classes.py with tokenizers {tokenizers.__version__}. First and last of each range.")
for constant, found in (("kLetters", of_class("L")), ("kNumbers", of_class("N")), ("kWords", words()),
                        ("kNewToNfc", passed_over())):
    cells = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(found)]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) > 108:
            lines.append(line)
            line = "   "
        line += " " + cell
    print(f"constexpr CodePointRange {constant}[] = {{")
    print("\n".join(lines + [line]))
    print("};")
