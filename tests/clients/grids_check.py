"""Every grid that a GGUF type stores, in other people's software.

usage: grids_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml, for its text)

Trains a small model with a tied head and one FFN for all layers, puts it on each grid (a few steps of training
where scales are learned, rounding elsewhere), and exports it twice: in the grid's type, and its values as F32.

1. gguf's own dequantizer makes of every tensor of the first file the values of the second, to the last bit.
2. llama.cpp continues a prompt from the second file with our 256 greedy bytes (F32 KV cache, flash attention
   off), and its log-probabilities are within 1e-4 of ours.
3. The first file loads, generates, and stays under a mean KL of 1e-3 to ours over teacher-forced positions.
"""
import pathlib, subprocess, sys, tempfile
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from llamacpp_check import PROMPT, complete, generated_text, our_log_probabilities, serve, their_log_probabilities

ROUNDED = ["q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "mxfp4", "int8_row", "int4_row", "int4_g32", "int4_g128"]
TRAINED = ["lsq4", "lsq3", "seq2", "seq_ternary", "ternary", "ternary_row", "binary"]
POSITIONS = 24

RECIPE = """
run: {{ name: grids, seed: 3, threads: 1, text: [{text}] }}
data: {{ train: stage:text, validation: stage:text, sequence: 64, batch_tokens: 1024, micro_batch: 16 }}
model: {{ family: llama, context: 512, layers: 2, width: 256, heads: 4, kv_heads: 2, ffn_width: 256,
         tie_embeddings: true, share: {{ ffn: all }} }}
train: {{ steps: 60, precision: fp32, optimizer: {{ lr: 3.0e-3 }}, schedule: {{ kind: wsd, warmup: 5 }} }}
stages:
  - {{ name: text, kind: prepare, prepare: {{ tokenizer: bytes, validation: 0.02 }} }}
  - {{ name: base, kind: train }}
"""
GRID = "quantize: {{ weights: {{ grid: {0} }}, embedding: {{ grid: {1} }} }}"
STAGES = {
    "round": "  - {{ name: {0}, kind: quantize, model: {{ from: stage:base }}, " + GRID + " }}\n",
    "train": "  - {{ name: {0}, kind: train, model: {{ from: stage:base }}, train: {{ steps: 12 }}, " + GRID + " }}\n"
             "  - {{ name: {0}-file, kind: export, model: {{ from: stage:{0} }}, export: {{ format: gguf }} }}\n",
}
VALUES = "  - {{ name: {0}-values, kind: export, model: {{ from: stage:{1} }}, export: {{ format: gguf, type: f32 }} }}\n"


def recipe(text):
    out = RECIPE.format(text=text)
    for kind, names in (("round", ROUNDED), ("train", TRAINED)):
        for name in names:
            # An embedding of two bits or fewer makes a model that says one byte for ever: nothing to compare.
            embedding = name if kind == "round" else "q8_0"
            out += STAGES[kind].format(name, embedding)
            out += VALUES.format(name, name if kind == "train" else f"{name}")
    return out


def check_values(quantized, values):
    by_name = {t.name: t for t in GGUFReader(values).tensors}
    types = set()
    for tensor in GGUFReader(quantized).tensors:
        ours = by_name.pop(tensor.name).data
        theirs = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(ours.shape)
        assert np.array_equal(theirs, ours), (quantized, tensor.name)  # zeros of either sign are equal
        types.add(tensor.tensor_type.name)
    assert not by_name, list(by_name)
    return sorted(types - {"F32"})


def check_text_and_probabilities(retort, values, ids):
    server = serve(values)
    theirs, ours = complete(server, PROMPT, 256)["text"].encode(), generated_text(retort, values)
    assert theirs == ours, f"{values}: greedy text differs:\nllama.cpp {theirs!r}\nretort    {ours!r}"
    ours = our_log_probabilities(retort, values, ids)
    worst = 0.0
    for position in range(8, POSITIONS):
        difference = np.abs(their_log_probabilities(server, ids[:position + 1]) - ours[position])
        worst = max(worst, float(np.nanmax(difference[ours[position] > np.log(1e-4)])))
    assert worst < 1e-4, f"{values}: log-probabilities differ by {worst:.1e}"
    return worst


def mean_kl(retort, quantized, values, ids):
    server = serve(quantized)
    assert complete(server, PROMPT, 16)["text"], f"{quantized} generates nothing"
    ours, kl = our_log_probabilities(retort, values, ids), []
    for position in range(POSITIONS):
        theirs = their_log_probabilities(server, ids[:position + 1])
        known = ~np.isnan(theirs)
        assert known.sum() >= 250, f"only {known.sum()} of 256 probabilities came back"
        kl.append(float((np.exp(ours[position][known]) * (ours[position][known] - theirs[known])).sum()))
    mean = float(np.mean(kl))
    assert mean < 1e-3, f"{quantized}: mean KL {mean:.2e}"
    return mean


def main():
    retort, text = sys.argv[1], (pathlib.Path(sys.argv[2]) / ".." / "text.txt").resolve()
    ids = list(text.read_bytes()[5000:5000 + POSITIONS + 1])
    with tempfile.TemporaryDirectory() as work:
        path, run = pathlib.Path(work, "grids.yaml"), pathlib.Path(work, "run")
        path.write_text(recipe(text))
        subprocess.run([retort, "run", path, "--set", f"run.dir={run}"], check=True, capture_output=True)
        for name in ROUNDED + TRAINED:
            quantized = run / (name if name in ROUNDED else f"{name}-file") / "model.gguf"
            values = run / f"{name}-values" / "model.gguf"
            types = check_values(quantized, values)
            worst = check_text_and_probabilities(retort, values, ids)
            kl = mean_kl(retort, quantized, values, ids)
            print(f"  {name:12} {'+'.join(types):12} values equal, log-probabilities within {worst:.0e}, KL {kl:.1e}")
    print(f"PASS grids: {len(ROUNDED + TRAINED)} grids")


main()
