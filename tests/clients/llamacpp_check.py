"""A byte-level student exported to GGUF, in llama.cpp.

usage: llamacpp_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. The quantized file loads and generates.
2. Its values, stored as F32, continue a prompt with the same 256 greedy bytes as `retort generate`
   (F32 KV cache, flash attention off: otherwise llama.cpp rounds).
3. Over 256 teacher-forced positions the quantized file's log-probabilities have a mean KL under 1e-3 to ours
   (llama.cpp rounds activations to 8 bits in quantized products, so they are not equal).
"""
import json, pathlib, subprocess, sys, tempfile
import numpy as np
import xllamacpp as x
from safetensors.numpy import load_file

PROMPT = "In the beginning God"


def server_parameters(path):
    p = x.CommonParams()
    p.model.path = str(path)
    p.n_ctx = 512
    p.cpuparams.n_threads = 2
    p.warmup = False
    p.verbosity = 0
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    return p


def serve(path):
    return x.Server(server_parameters(path))


def complete(server, prompt, tokens, probabilities=0):
    request = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
    if probabilities:
        request["n_probs"] = probabilities
    reply = server.handle_completions(request)
    assert "choices" in reply, reply
    return reply["choices"][0]


def generated_text(retort, model):
    out = subprocess.run([retort, "generate", model, "--prompt", PROMPT, "--tokens", "256", "--temperature", "0"],
                         check=True, capture_output=True).stdout
    return out.removeprefix(PROMPT.encode()).removesuffix(b"\n")[:256]


def our_log_probabilities(retort, model, ids):
    with tempfile.TemporaryDirectory() as directory:
        source, out = pathlib.Path(directory, "ids.json"), pathlib.Path(directory, "logits.safetensors")
        source.write_text(json.dumps([ids]))
        subprocess.run([retort, "logits", model, "--ids", source, "--out", out], check=True, capture_output=True)
        logits = load_file(out)["logits"][0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def their_log_probabilities(server, ids):
    """The distribution after `ids`, by token id."""
    content = complete(server, ids, 1, probabilities=256)["logprobs"]["content"][0]
    out = np.full(256, np.nan)
    for entry in content["top_logprobs"]:
        out[entry["id"]] = entry["logprob"]
    return out


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    quantized, values = run / "gguf" / "model.gguf", run / "values" / "model.gguf"

    server = serve(values)
    theirs = complete(server, PROMPT, 256)["text"].encode()
    ours = generated_text(retort, values)
    assert len(ours) == 256, len(ours)
    assert theirs == ours, f"greedy text differs:\nllama.cpp {theirs!r}\nretort    {ours!r}"
    del server

    server = serve(quantized)
    assert complete(server, PROMPT, 64)["text"], "the quantized file generates nothing"
    text = (run / ".." / "text.txt").resolve().read_bytes()
    start = len(text) - 300
    ids = list(text[start:start + 257])
    ours = our_log_probabilities(retort, quantized, ids)
    kl = []
    for position in range(256):
        theirs = their_log_probabilities(server, ids[:position + 1])
        known = ~np.isnan(theirs)
        assert known.sum() >= 250, f"only {known.sum()} of 256 probabilities came back"
        p = np.exp(ours[position][known])
        kl.append(float((p * (ours[position][known] - theirs[known])).sum()))
    mean = float(np.mean(kl))
    assert mean < 1e-3, f"mean KL {mean:.2e} over {len(kl)} positions"
    print(f"PASS llama.cpp: 256 greedy bytes equal, mean KL of the quantized file {mean:.1e} over 256 positions")


if __name__ == "__main__":
    main()
