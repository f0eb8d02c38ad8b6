"""Quantized Hugging Face folders, in transformers with compressed-tensors, and read by an independent dequantizer.

usage: compressed_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

A random Llama is quantized by every kind of scheme that a folder holds. compressed-tensors folders load with
nothing missing or left over, and their logits are within 1e-3 of ours (of the checkpoint that the same command
writes). Where the runtime rounds activations, ours are transformers' on our values with each token's inputs
rounded by hand. GPTQ folders (both versions) are dequantized here, from the layout's own rule. NVFP4 folders are
dequantized by compressed-tensors in f32, bit for bit (its loader makes bf16 of them).
"""
import json, pathlib, subprocess, sys, tempfile
import numpy as np
import torch
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

IDS = [list(b"In the beginning God created the heaven and the earth."), list(b"And God said, Let there be light: and there was light.")]
IDS = [row[:48] for row in IDS]


def random_llama(folder, tied):
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         initializer_range=0.1, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None)
    LlamaForCausalLM(config).save_pretrained(folder)


def our_logits(retort, model, work):
    source, out = work / "ids.json", work / "logits.safetensors"
    source.write_text(json.dumps(IDS))
    subprocess.run([retort, "logits", model, "--ids", source, "--out", out], check=True, capture_output=True)
    return load_file(out)["logits"]


def quantize(retort, model, scheme, out, form, run):
    command = [retort, "quantize", model, "--scheme", scheme, "--out", out, "--format", form, "--tokens", "8192",
               "--sequence", "128", "--no-baselines", "--limit", "512", "--calibration", run / "text"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits


def rounding_activations(model, kind):
    """Every Linear but the head reads inputs rounded a token at a time."""
    def rounded(module, inputs):
        x = inputs[0]
        peak = x.abs().amax(-1, keepdim=True)
        if kind == "fp8":
            scale = peak / 448
            return ((x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype) * scale,)
        scale = peak / 127.5
        return (torch.clamp(torch.round(x / scale), -128, 127) * scale,)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(rounded)
    return model


def words(packed, bits):
    """Codes of i32 words, the first lowest, along the last axis."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (packed.view(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1).astype(np.float32)


def dequantized_gptq(folder):
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config == json.loads((folder / "quantize_config.json").read_text())
    bits, offset = config["bits"], 1 if config["checkpoint_format"] == "gptq" else 0
    out = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part in ("qzeros", "scales", "g_idx"):
            continue
        if part != "qweight":
            out[name] = tensor
            continue
        q = words(tensor.numpy().T.copy(), bits)                                  # [out, in]
        zeros = words(tensors[module + ".qzeros"].numpy(), bits) + offset         # [groups, out]
        scales = tensors[module + ".scales"].numpy().astype(np.float32)           # [groups, out]
        group = tensors[module + ".g_idx"].numpy()
        out[module + ".weight"] = torch.from_numpy((q - zeros[group].T) * scales[group].T)
    return out


def dequantized_nvfp4(folder):
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config["format"] == "nvfp4-pack-quantized"
    args = QuantizationArgs(**config["config_groups"]["group_0"]["weights"])
    tensors, out = load_file(folder / "model.safetensors"), {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part == "weight_packed":
            rows, half = tensor.shape
            codes = unpack_fp4_from_uint8(tensor, rows, 2 * half, torch.float32)
            out[module + ".weight"] = dequantize(codes, tensors[module + ".weight_scale"].float(), args=args,
                                                 dtype=torch.float32, global_scale=tensors[module + ".weight_global_scale"])
        elif part not in ("weight_scale", "weight_global_scale"):
            out[name] = tensor
    return out


def check_nvfp4(retort, run, work):
    """Their dequantizer gives our values bit for bit, and their rounding to nearest the same numbers."""
    random_llama(work / "llama", False)
    for scheme in ("rtn-nvfp4a16", "gptq-nvfp4a16"):
        out, values, plain = work / scheme, work / f"values-{scheme}", work / f"plain-{scheme}"
        quantize(retort, work / "llama", scheme, out, "compressed-tensors", run)
        quantize(retort, work / "llama", scheme, values, "checkpoint", run)
        subprocess.run([retort, "export", values, "--format", "hf", "--type", "f32", "--out", plain],
                       check=True, capture_output=True)
        ours, theirs = load_file(plain / "model.safetensors"), dequantized_nvfp4(out)
        assert ours.keys() == theirs.keys(), scheme
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), f"{scheme}: {name} differs"
        if scheme.startswith("rtn"):  # round to nearest is theirs, but for the last bit of the tensor's scale
            source = load_file(work / "llama" / "model.safetensors")
            for name, tensor in theirs.items():
                if name.endswith("_proj.weight"):
                    assert torch.allclose(tensor, rounded_nvfp4(source[name]), rtol=1e-6, atol=0), f"{name} is rounded otherwise"
    return 2


def rounded_nvfp4(weight):
    """compressed-tensors' own scales and numbers of a matrix."""
    args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True,
                            scale_dtype=torch.float8_e4m3fn, zp_dtype=torch.float8_e4m3fn)
    groups = weight.unflatten(1, (-1, 16))
    low, high = groups.amin(-1), groups.amax(-1)
    whole = generate_gparam(weight.amin(), weight.amax())
    scale, zero = calculate_qparams(low, high, args, global_scale=whole)
    return fake_quantize(weight, scale.float(), zero.float(), args, global_scale=whole)


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    worst, folders = 0.0, 0
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        for tied in (False, True):
            random_llama(work / "llama", tied)
            for scheme in ("rtn-w4a16", "gptq-w4a16-g32", "awq-w4a16-g32", "rtn-w8a16", "rtn-w8a8", "gptq-fp8"):
                out = work / f"{scheme}-{tied}"
                quantize(retort, work / "llama", scheme, out, "compressed-tensors", run)
                quantize(retort, work / "llama", scheme, work / f"values-{scheme}-{tied}", "checkpoint", run)
                values = work / f"values-{scheme}-{tied}"
                if scheme.endswith(("w8a8", "fp8")):
                    plain = work / f"plain-{scheme}-{tied}"
                    subprocess.run([retort, "export", values, "--format", "hf", "--type", "f32", "--out", plain],
                                   check=True, capture_output=True)
                    ours = logits(rounding_activations(load(plain), scheme.rpartition("-")[2]))
                else:
                    ours = our_logits(retort, values, work)
                error = difference(ours, logits(load(out)))
                assert error < 1e-3, f"{scheme}: logits differ by {error:.2e}"
                worst, folders = max(worst, error), folders + 1
        for form, scheme in (("gptq", "gptq-w4a16-g32"), ("gptq_v2", "gptq-w4a16"), ("gptq", "rtn-w8a16")):
            out, values = work / f"{form}-{scheme}", work / f"values-{scheme}-False"
            random_llama(work / "llama", False)
            quantize(retort, work / "llama", scheme, out, form, run)
            if not values.exists():
                quantize(retort, work / "llama", scheme, values, "checkpoint", run)
            model = LlamaForCausalLM(LlamaConfig.from_pretrained(work / "llama")).eval()
            model.load_state_dict(dequantized_gptq(out))
            error = difference(our_logits(retort, values, work), logits(model))
            assert error < 1e-3, f"{form} {scheme}: logits differ by {error:.2e}"
            worst, folders = max(worst, error), folders + 1
        folders += check_nvfp4(retort, run, work)
    print(f"PASS compressed: {folders} folders, logits within {worst:.1e}")


main()
