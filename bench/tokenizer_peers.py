#!/usr/bin/env python3
"""Encoding speed of Retort beside Hugging Face's tokenizers and tiktoken: GPT-2's vocabulary, one text, one core.

usage: tokenizer_peers.py BENCH_TOKENIZER GPT2_FOLDER TEXT...
       (PyPI: tokenizers, tiktoken; the folder holds tokenizer.json, encoder.json and vocab.bpe)

Rounds are interleaved, so that all meet the same neighbours; CPU time of the process; ids must be the same.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")
import tiktoken
import tiktoken.load
import tokenizers

ROUNDS = 9
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def timed(work):
    start = time.process_time()
    ids = work()
    return time.process_time() - start, len(ids)


def main(bench, folder, paths):
    text = "".join(pathlib.Path(p).read_text(encoding="utf-8") for p in paths)
    size = len(text.encode()) / 2**20
    hf = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    tik = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(text)
        file.flush()

        def ours():
            out = subprocess.run([bench, folder / "tokenizer.json", file.name, "3"], check=True,
                                 capture_output=True, text=True).stdout.splitlines()
            return float(out[2].split()[2]) / 1e3, int(out[3].split(" tokens")[0].split()[-1])

        ways = {"retort": ours, "tiktoken": lambda: timed(lambda: tik.encode_ordinary(text)),
                "tokenizers": lambda: timed(lambda: hf.encode(text, add_special_tokens=False).ids)}
        rates, counts = {name: [] for name in ways}, set()
        for _ in range(ROUNDS):
            for name, way in ways.items():
                seconds, count = way()
                rates[name].append(size / seconds)
                counts.add(count)
    assert len(counts) == 1, f"they disagree: {counts}"
    assert hf.encode(text, add_special_tokens=False).ids == tik.encode_ordinary(text)
    print(f"{size:.2f} MiB, {counts.pop()} tokens, {ROUNDS} interleaved rounds, CPU time of one thread")
    for name, values in rates.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(o / v for o, v in zip(rates["retort"], values))
        print(f"{name:10} {statistics.median(values):7.1f} MiB/s   quartiles {low:.1f} .. {high:.1f}   retort is {ratio:.1f} x")
    print(f"tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__}")


main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:])
