"""Every family in transformers and in llama.cpp: random models, from a Hugging Face folder and back, and to GGUF.

usage: families_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml, for its byte tokenizer)

1. `retort export --format hf` of a folder that transformers wrote (f32 in shards; f16 and bf16 in one file) loads
   with AutoModelForCausalLM with nothing missing or left over, holds the same bits, and gives the same logits as the
   model it came from, as `retort logits` does: within 1e-4 of the largest.
2. The F32 GGUF continues a prompt with the same 128 greedy ids in llama.cpp as `retort generate` does (F32 KV cache,
   flash attention off). Phi-3's longrope is checked below and beyond its original context. llama.cpp's bitnet computes
   SiLU: a BitNet of squared ReLU is checked as a folder, plain and with packed ternary weights, and its GGUF is refused.
3. Of F16, BF16, Q8_0 and Q4_0 files the mean KL of llama.cpp's distributions from ours is under 1e-3 over
   teacher-forced positions (llama.cpp rounds activations after the type of the weights).
"""
import copy, json, os, pathlib, shutil, subprocess, sys, tempfile
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # transformers compiles two lines of BitNet
import numpy as np
import torch
import transformers
import xllamacpp as x
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.bitnet import pack_weights

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CONTEXT, ORIGINAL, VOCABULARY = 512, 256, 256
PROMPT = [(37 * i * i + 11) % VOCABULARY for i in range(CONTEXT)]  # any ids: the models are random
TYPES = ("f16", "bf16", "q8_0", "q4_0")


def configs():
    base = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT,
                bos_token_id=None, eos_token_id=None, pad_token_id=None)
    llama3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64)
    long = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0 + 0.02 * i for i in range(8)],
                long_factor=[1.0 + 0.5 * i for i in range(8)], original_max_position_embeddings=ORIGINAL)
    t = transformers
    llama = dict(rms_norm_eps=1e-5, tie_word_embeddings=False)
    return {
        "gpt2": t.GPT2Config(n_embd=64, n_layer=3, n_head=4, n_positions=CONTEXT, vocab_size=VOCABULARY,
                             bos_token_id=None, eos_token_id=None),
        "llama": t.LlamaConfig(**base, **llama),
        "llama-tied": t.LlamaConfig(**base, rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters=llama3),
        "llama-linear": t.LlamaConfig(**base, **llama,
                                      rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)),
        "llama-one-ffn": t.LlamaConfig(**base, **llama),
        "phi3": t.Phi3Config(**base, **llama),
        "phi3-longrope": t.Phi3Config(**base, **llama, original_max_position_embeddings=ORIGINAL,
                                      rope_parameters=long),
        "qwen2": t.Qwen2Config(**base, rms_norm_eps=1e-6, tie_word_embeddings=True),
        "qwen3": t.Qwen3Config(**base, head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=False),
        "gemma3": t.Gemma3TextConfig(**{**base, "num_hidden_layers": 4}, head_dim=32, rms_norm_eps=1e-6,
                                     query_pre_attn_scalar=32, sliding_window=12, tie_word_embeddings=True,
                                     layer_types=["sliding_attention", "full_attention"] * 2),
        "bitnet": t.BitNetConfig(**base, tie_word_embeddings=False),
        "bitnet-silu": t.BitNetConfig(**base, hidden_act="silu", tie_word_embeddings=True),
    }


def random_model(name, config, seed):
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:  # norms and biases off their trivial values, so that a mistake shows
                p.add_(0.2 * torch.randn_like(p))
            else:
                p.copy_(0.08 * torch.randn_like(p))
        if name == "llama-one-ffn":
            for layer in model.model.layers[1:]:
                layer.mlp.load_state_dict(model.model.layers[0].mlp.state_dict())
    return model


class Retort:
    def __init__(self, binary):
        self.binary = binary

    def run(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, f"retort {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def refusal(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 2, f"retort {' '.join(map(str, arguments))}: exit {done.returncode}"
        return done.stderr

    def export(self, source, out, kind, dtype):
        self.run("export", source, "--format", kind, "--type", dtype, "--out", out)
        return out

    def logits(self, model, ids):
        with tempfile.TemporaryDirectory() as directory:
            source, out = pathlib.Path(directory, "ids.json"), pathlib.Path(directory, "logits.safetensors")
            source.write_text(json.dumps([ids]))
            self.run("logits", model, "--ids", source, "--out", out)
            return load_file(out)["logits"][0]

    def continue_greedily(self, model, ids, tokens):
        out = self.run("generate", model, "--ids", ",".join(map(str, ids)), "--tokens", tokens, "--temperature", 0)
        return [int(word) for word in out.split()]


def silence_native_code():
    """llama.cpp gives the ids with its most verbose setting only, and says much on stderr; Python's goes on."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class LlamaCpp:
    def __init__(self, path, context):
        p = x.CommonParams()
        p.model.path = str(path)
        p.n_ctx = context
        p.cpuparams.n_threads = 1
        p.warmup = False
        p.verbosity = 10
        p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
        self.server = x.Server(p)

    def complete(self, ids, tokens, probabilities=0):
        request = {"prompt": ids, "n_predict": tokens, "temperature": 0, "cache_prompt": False, "ignore_eos": True,
                   "return_tokens": True}
        if probabilities:  # of the raw logits: the bias only makes the token text, else none come back
            request |= {"n_probs": probabilities, "logit_bias": [[ord("A"), 1000.0]]}
        reply = self.server.handle_completions(request)
        assert "__verbose" in reply, reply
        return reply["__verbose"]

    def continue_greedily(self, ids, tokens):
        return self.complete(ids, tokens)["tokens"]

    def log_probabilities(self, ids):
        """The distribution after `ids`, by token id."""
        entries = self.complete(ids, 1, VOCABULARY)["completion_probabilities"][0]["top_logprobs"]
        out = np.full(VOCABULARY, np.nan)
        for entry in entries:
            out[entry["id"]] = entry["logprob"]
        return out


def write_folder(model, name, folder, tokenizer, **options):
    model.save_pretrained(folder, **options)
    if name == "llama-one-ffn":  # as MobiLlama keeps it
        state = load_file(folder / "model.safetensors")
        for key in [k for k in state if ".mlp." in k and ".layers.0." not in k]:
            del state[key]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)


def check_folder(retort, model, name, source, out, dtype):
    exported = retort.export(source, out, "hf", {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype])
    again, info = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True, dtype=dtype,
                                                       attn_implementation="eager")
    assert not any(info.values()), (name, info)
    ours, theirs = again.state_dict(), model.to(dtype).state_dict()
    assert ours.keys() == theirs.keys(), name
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), f"{name}: {key} is not what it was"
    # not its length: for Qwen2 transformers adds a token of its own
    assert AutoTokenizer.from_pretrained(exported)("a tokenizer")["input_ids"] == list(b"a tokenizer"), name
    assert (exported / "generation_config.json").exists()
    if dtype != torch.float32:
        return 0.0
    worst = 0.0
    for ids in (PROMPT[:40], PROMPT[:ORIGINAL + 40]):
        with torch.no_grad():
            expected, theirs = (m(torch.tensor([ids])).logits[0] for m in (model, again))
        for got in (theirs, retort.logits(source, ids), retort.logits(exported, ids)):
            worst = max(worst, ((got - expected).abs().max() / expected.abs().max()).item())
    assert worst < 1e-4, f"{name}: logits differ by {worst:.1e}"
    return worst


def check_packed_bitnet(retort, model, work):
    """A folder of ternary codes, as published: the values that transformers computes with, to the last bit."""
    model, folder = copy.deepcopy(model), work / "packed"
    model.config.quantization_config = dict(quant_method="bitnet", linear_class="autobitlinear", quantization_mode="offline")
    state, expected = {}, {}
    for key, value in model.state_dict().items():
        state[key] = expected[key] = value
        if key.endswith("_proj.weight"):
            scale = value.abs().mean()
            codes = (value / scale).round().clamp(-1, 1)
            expected[key] = codes * scale
            state[key], state[key + "_scale"] = pack_weights(codes.clone()), scale.reshape(1)
    model.config.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    ours = load_file(retort.export(folder, work / "unpacked", "hf", "f32") / "model.safetensors")
    for key, value in expected.items():
        assert torch.equal(ours[key], value), f"packed bitnet: {key}"
        computed = theirs[key] * theirs[key + "_scale"] if key + "_scale" in theirs else theirs[key]
        assert torch.equal(ours[key], computed), f"packed bitnet in transformers: {key}"


def check_greedy(retort, name, file):
    prompts = {CONTEXT: 16} if "longrope" not in name else {ORIGINAL: 16, CONTEXT: ORIGINAL + 8}
    for context, length in prompts.items():
        ours = retort.continue_greedily(file, PROMPT[:length], 128)
        theirs = LlamaCpp(file, context).continue_greedily(PROMPT[:length], 128)
        assert len(ours) == 128, len(ours)
        assert 0 not in ours, f"{name}: id 0 ends a text, and llama.cpp passes over it here; take another seed"
        same = next((i for i in range(128) if ours[i] != theirs[i]), 128)
        assert same == 128, f"{name}: greedy ids part after {same} tokens after a prompt of {length}"


def mean_kl(retort, name, file, positions=40):
    start = ORIGINAL + 1 if "longrope" in name else 1
    ids = PROMPT[:start + positions]
    logits = retort.logits(file, ids).numpy().astype(np.float64)
    ours = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    server = LlamaCpp(file, CONTEXT)
    kl = []
    for n in range(start, start + positions):
        theirs = server.log_probabilities(ids[:n])
        assert not np.isnan(theirs).any(), f"{name}: probabilities of some ids did not come back"
        kl.append(float((np.exp(ours[n - 1]) * (ours[n - 1] - theirs)).sum()))
    return float(np.mean(kl))


def check_family(retort, name, config, tokenizer, work):
    model = random_model(name, config, seed=9 if name == "bitnet-silu" else 1)  # of one without id 0 below
    source = work / "source"
    write_folder(model, name, source, tokenizer, **({} if name == "llama-one-ffn" else {"max_shard_size": "60KB"}))
    error = check_folder(retort, model, name, source, work / "again", torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(model).to(dtype)
        write_folder(half, name, work / f"{dtype}", tokenizer)
        check_folder(retort, half, name, work / f"{dtype}", work / f"{dtype}-again", dtype)
    if name == "bitnet":
        said = retort.refusal("export", source, "--format", "gguf", "--type", "f32", "--out", work / "f32.gguf")
        assert "computes SiLU" in said and not (work / "f32.gguf").exists(), said
        check_packed_bitnet(retort, model, work)
        return print(f"  {name:<14} logits {error:.0e}  GGUF refused", flush=True)
    check_greedy(retort, name, retort.export(source, work / "f32.gguf", "gguf", "f32"))
    divergence = {}
    for kind in TYPES:
        divergence[kind] = mean_kl(retort, name, retort.export(source, work / f"{kind}.gguf", "gguf", kind))
        assert divergence[kind] < 1e-3, f"{name} {kind}: mean KL {divergence[kind]:.2e}"
    print(f"  {name:<14} logits {error:.0e}  KL " + "  ".join(f"{k} {v:.0e}" for k, v in divergence.items()), flush=True)


def main():
    retort, run = Retort(sys.argv[1]), pathlib.Path(sys.argv[2])
    only = sys.argv[3:]
    torch.set_num_threads(1)
    silence_native_code()
    all_configs = {name: c for name, c in configs().items() if not only or name in only}
    for name, config in all_configs.items():
        with tempfile.TemporaryDirectory() as work:
            check_family(retort, name, config, run / "hf", pathlib.Path(work))
    print(f"PASS families: {len(all_configs)} models both ways in transformers {transformers.__version__}, "
          f"{len(all_configs.keys() - {'bitnet'})} with 128 greedy ids and {len(TYPES)} types in llama.cpp ({x.__version__})")


main()
