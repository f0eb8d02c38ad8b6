"""An exported Hugging Face folder, in transformers.

usage: transformers_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

The folder loads with nothing missing or left over, its logits are within 1e-4 of ours, its tokenizer gives the
text's bytes and back.
"""
import json, pathlib, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    folder = run / "hf"
    torch.set_num_threads(1)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    text = "And God said, Let there be light: and there was light.\n\xe9\u4e2d"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == list(text.encode()), ids
    assert tokenizer.decode(ids) == text
    with tempfile.TemporaryDirectory() as directory:
        source, out = pathlib.Path(directory, "ids.json"), pathlib.Path(directory, "logits.safetensors")
        source.write_text(json.dumps([ids]))
        subprocess.run([retort, "logits", folder, "--ids", source, "--out", out], check=True, capture_output=True)
        ours = load_file(out)["logits"]
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error < 1e-4, f"logits differ by {error:.2e}"
    print(f"PASS transformers: folder complete, logits within {error:.1e}, tokenizer exact")


main()
