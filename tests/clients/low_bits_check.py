"""A published model on a low-bit grid gives llama.cpp the figures that it gives Retort.

usage: low_bits_check.py RETORT RUN [GGUF...]    (RUN: a finished tests/clients/clients.yaml)

SmolLM2-135M-Instruct rounded to Q4_0 by `retort quantize`, or the files that are named, over TOKENS tokens of the King James
Bible: llama.cpp's distributions of the LIKELIEST tokens have a mean KL below BOUND to ours, and the mean negative
log-probability of the text's own tokens is ours within three standard deviations of what that KL allows, sqrt(2 KL / TOKENS).
They are not equal, since llama.cpp rounds activations to 8 bits in products of quantized matrices.
"""
import json, pathlib, subprocess, sys, tempfile
import numpy as np
import llamacpp_check as llama
import smollm2

TOKENS, LIKELIEST, BOUND = 32, 4096, 0.02


def text_ids(retort, model):
    text = subprocess.run(["bible", "-f", "joh1:1-joh1:20"], check=True, capture_output=True).stdout
    ids = subprocess.run([retort, "tokenizer", "encode", "--tokenizer", model],
                         check=True, capture_output=True, input=text).stdout
    return [int(word) for word in ids.split()][:TOKENS + 1]


def their_log_probabilities(server, ids, vocabulary):
    """The distribution after `ids`, by token id."""
    request = {"prompt": ids, "n_predict": 1, "temperature": 0, "cache_prompt": True, "n_probs": LIKELIEST}
    out = np.full(vocabulary, np.nan)
    for entry in server.handle_completions(request)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        out[entry["id"]] = entry["logprob"]
    return out


def compare(retort, model):
    ids = text_ids(retort, model)
    assert len(ids) == TOKENS + 1, len(ids)
    ours = llama.our_log_probabilities(retort, model, ids)
    server = llama.serve(model)
    nats, kl, agree = [], [], 0
    for position in range(TOKENS):
        theirs = their_log_probabilities(server, ids[:position + 1], ours.shape[1])
        known, token = ~np.isnan(theirs), ids[position + 1]
        p = ours[position][known]
        assert np.exp(p).sum() > 0.9, f"position {position}: the likeliest tokens have {np.exp(p).sum()} of ours"
        kl.append(float((np.exp(p) * (p - theirs[known])).sum()))
        agree += int(np.nanargmax(theirs) == ours[position].argmax())
        if known[token]:
            nats.append((-ours[position][token], -theirs[token]))
    assert len(nats) > 0.9 * TOKENS, f"only {len(nats)} of {TOKENS} tokens are among the likeliest"
    own, other = np.mean(nats, axis=0)
    print(f"{model}: nats a token {own:.4f} (llama.cpp {other:.4f}), mean KL {np.mean(kl):.2e}, "
          f"{agree} of {TOKENS} likeliest tokens equal")
    assert np.mean(kl) < BOUND, f"mean KL {np.mean(kl)}"
    assert abs(own - other) < 3 * np.sqrt(2 * np.mean(kl) / len(nats)), f"{own} {other} at mean KL {np.mean(kl)}"


def main():
    retort, named = sys.argv[1], sys.argv[3:]
    for path in named:
        compare(retort, path)
    if not named:
        with tempfile.TemporaryDirectory() as directory:
            path = str(pathlib.Path(directory, "q4.gguf"))
            subprocess.run([retort, "quantize", smollm2.model(), "--scheme", "rtn-q4_0", "--out", path], check=True,
                           capture_output=True)
            compare(retort, path)
    print("PASS low bits: llama.cpp has our figures")


if __name__ == "__main__":
    main()
