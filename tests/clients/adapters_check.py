"""Adapters that Retort trained, in peft and in llama.cpp.

usage: adapters_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. peft opens the folders, rsLoRA and DoRA with embedding and head, over the base that they name; its logits are within 1e-4
   of ours, and far from the base's. The folder of the merged DoRA model has them too.
2. llama.cpp applies the GGUF adapter to the base's GGUF: 128 greedy bytes and the log-probabilities after them
   are those of the merged model's GGUF.
"""
import pathlib, subprocess, sys, tempfile, json
import numpy as np
import torch
import xllamacpp as x
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llamacpp_check import PROMPT, complete, server_parameters, their_log_probabilities

IDS = list(b"And God said, Let there be light: and there was light. And God saw the light, that it was good.")


def ours(retort, model):
    with tempfile.TemporaryDirectory() as directory:
        source, out = pathlib.Path(directory, "ids.json"), pathlib.Path(directory, "logits.safetensors")
        source.write_text(json.dumps([IDS]))
        subprocess.run([retort, "logits", model, "--ids", source, "--out", out], check=True, capture_output=True)
        return load_file(out)["logits"]


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check_peft(retort, run, name):
    folder = run / f"{name}-peft"
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = model(torch.tensor([IDS])).logits
    error, moved = distance(ours(retort, folder), theirs), distance(ours(retort, run / "hf"), theirs)
    assert error < 1e-4, f"{name}: logits differ by {error:.1e} from peft's"
    assert moved > 1e-2, f"{name}: the adapter moves the base's logits by {moved:.1e} only"
    return theirs, error


def check_llamacpp(run):
    def served(model, adapter=None):
        parameters = server_parameters(model)
        if adapter:
            parameters.lora_adapters = [x.CommonAdapterLoraInfo(str(adapter), 1.0)]
        server = x.Server(parameters)
        text = complete(server, PROMPT, 128)["text"]
        return text, their_log_probabilities(server, IDS)

    base, _ = served(run / "values" / "model.gguf")
    merged, expected = served(run / "lora-merged" / "model.gguf")
    joined, found = served(run / "values" / "model.gguf", run / "lora-gguf" / "adapter.gguf")
    assert joined == merged, f"greedy text differs:\nadapter {joined!r}\nmerged  {merged!r}"
    assert joined != base, "the adapter leaves llama.cpp's text as it was"
    error = float(np.nanmax(np.abs(found - expected)))
    assert np.isfinite(found).sum() >= 250 and error < 1e-3, f"log-probabilities differ by {error:.1e}"
    return error


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    _, lora = check_peft(retort, run, "lora")
    theirs, dora = check_peft(retort, run, "dora")
    merged = AutoModelForCausalLM.from_pretrained(run / "dora-merged", dtype=torch.float32)
    with torch.no_grad():
        error = distance(merged(torch.tensor([IDS])).logits, theirs)
    assert error < 1e-4, f"the merged folder's logits differ by {error:.1e} from peft's"
    print(f"PASS adapters: peft's logits within {max(lora, dora):.1e}, merged within {error:.1e}; "
          f"llama.cpp's text equal, log-probabilities within {check_llamacpp(run):.1e}")


if __name__ == "__main__":
    main()
