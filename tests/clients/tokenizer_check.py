"""Tokenizers, as `tokenizers`, `transformers`, `sentencepiece` and llama.cpp see them.

usage: tokenizer_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. The byte tokenizer of the exported folder: ids are the bytes of the UTF-8 text.
2. Published vocabularies ($RETORT_TEST_DATA, default ../shared/data; left out aloud without it): `retort tokenizer
   encode` and `decode` give the ids and texts of `tokenizers` on 10,000 random strings and on whole files, from each
   of the files that a vocabulary comes in; a SentencePiece model's ids are those of `sentencepiece`. The same for
   GPT-2's vocabulary after the normalizers and pre-tokenizers of Llama 3 and Qwen 2.
3. `retort tokenizer train`: `tokenizers` reads what it writes and gives the same ids.
4. A model trained on those tokens, exported: AutoTokenizer gives our ids, and llama.cpp answers a text as it answers
   our ids of that text.
5. The files beside a vocabulary's file (tokenizer_config.json, added_tokens.json, special_tokens_map.json), over
   tokenizer.json and pairs of GPT-2's and Qwen2's class: the ids of AutoTokenizer.
Prints PASS or raises.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import sentencepiece
import tokenizers
import transformers
import unicodedata2
import xllamacpp as x

TEXTS = [
    "",
    "In the beginning God created the heaven and the earth.",
    "  two spaces,\ttab,\nnewline\r\n\n\n and a trailing space ",
    "qz QZ a's it's IT'S 1234567890 !?#",
    "h\u00e9llo w\u00f6rld \u00e6\u00df \u0416 \u4e2d\u6587 \u0e44\u0e17\u0e22 \U0001f600\u200d\U0001f600 e\u0301",
    "".join(chr(c) for c in range(0x800)),  # every one-byte and two-byte character
    "\u0120the <|endoftext|> <s> </s> [PAD] \u2581",
]
PARTS = [" ", "  ", "\n", "\r\n", "\t", "'s", "'S", "'LL", "'\u017f", "12345", "\u00e9", "e\u0301", "\u3000", "\u2581",
         "<|endoftext|>", "<s>", "</s>", "<unk>", "<0x0A>", "\u65e5\u672c", "a", "Zebra", "\u2028", "\u200d", "\ufffd",
         "\0", "\x85", "\u00bd", "\u0663"]


MARKS = [chr(c) for c in range(0x20000) if unicodedata2.combining(chr(c))]

CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PIPELINES = {"llama3": (None, CL100K, True), "qwen2": ("NFC", CL100K.replace("{1,3}", ""), False)}


def random_text(rng):
    kind, count = rng.randrange(4), rng.randrange(1, 40)
    if kind == 3:  # what a normalizer reorders and composes
        return "".join(rng.choice(MARKS) if rng.random() < 0.6 else chr(rng.choice([rng.randrange(0x61, 0x7B), rng.randrange(0x11400)
                       % 0xD800])) for _ in range(count))
    if kind == 0:
        return "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0xD800),
                                       rng.randrange(0xE000, 0x110000)])) for _ in range(count))
    if kind == 1:
        return "".join(rng.choice(PARTS) for _ in range(count))
    return "".join(chr(rng.randrange(32, 127)) if rng.random() < 0.8 else rng.choice(PARTS) for _ in range(count))


def retort_json(retort, action, tokenizer, values):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        out = subprocess.run([retort, "tokenizer", action, "--tokenizer", tokenizer, "--json", file.name], check=True,
                             capture_output=True).stdout
    return json.loads(out)


def same(name, ours, theirs, texts):
    assert len(ours) == len(theirs) == len(texts)
    for mine, other, text in zip(ours, theirs, texts):
        assert mine == other, f"{name}: {text[:80]!r} gave {mine[:20]}, wanted {other[:20]}"


def check_bytes(folder):
    rng = random.Random(0)
    texts = TEXTS + [random_text(rng) for _ in range(200)]
    ids = [list(t.encode()) for t in texts]
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.get_vocab_size() == 256, plain.get_vocab_size()
    same("bytes in tokenizers", [plain.encode(t).ids for t in texts], ids, texts)
    same("bytes in tokenizers", [plain.decode(i) for i in ids], texts, texts)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(auto) == 256, len(auto)
    same("bytes in AutoTokenizer", [auto(t)["input_ids"] for t in texts], ids, texts)
    same("bytes in AutoTokenizer", [auto.decode(i) for i in ids], texts, texts)
    assert plain.decode([0xE4, 0xB8, 0xAD]) == "\u4e2d" and plain.decode([0xFF]) == "\ufffd"


def behind_pipeline(work, path, name):
    """The vocabulary of a tokenizer.json with another model's normalizer, pattern and `ignore_merges`."""
    normalizer, pattern, ignore_merges = PIPELINES[name]
    spec = json.loads(path.read_text())
    spec["normalizer"] = normalizer and {"type": normalizer}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]}
    spec["model"]["ignore_merges"] = ignore_merges
    out = work / name / "tokenizer.json"
    out.parent.mkdir()
    out.write_text(json.dumps(spec))
    return out


def check_published(retort, data, work):
    rng = random.Random(1)
    texts = TEXTS + [random_text(rng) for _ in range(10000)]
    texts += [f.read_text(encoding="utf-8") for f in sorted((data / "text").rglob("*.txt"))]
    for name, files in {"gpt2": ["tokenizer.json", "vocab.bpe"], "mistral": ["tokenizer.json", "tokenizer.model"]}.items():
        folder = data / "tokenizers" / name
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
        for file in files:
            same(f"{name} {file}", retort_json(retort, "encode", folder / file, texts), ids, texts)
        same(f"{name} decoded", retort_json(retort, "decode", folder / files[0], ids),
             [reference.decode(i, skip_special_tokens=False) for i in ids], texts)
    for name in PIPELINES:
        file = behind_pipeline(work, data / "tokenizers" / "gpt2" / "tokenizer.json", name)
        reference = tokenizers.Tokenizer.from_file(str(file))
        ids = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
        same(name, retort_json(retort, "encode", file, texts), ids, texts)
        same(f"{name} decoded", retort_json(retort, "decode", file, ids),
             [reference.decode(i, skip_special_tokens=False) for i in ids], texts)
    model = data / "tokenizers" / "mistral" / "tokenizer.model"
    peer = sentencepiece.SentencePieceProcessor(model_file=str(model))
    # It has no marks in texts, and takes U+0000 for a text's end.
    plain = [t for t in texts if t and not any(mark in t for mark in ("<s>", "</s>", "<unk>", "\0"))]
    same("sentencepiece", retort_json(retort, "encode", model, plain), [peer.encode(t) for t in plain], plain)
    return len(texts)


def check_trained(retort, folder, text):
    subprocess.run([retort, "tokenizer", "train", text, "--out", folder, "--vocabulary", "1000", "--special",
                    "<|endoftext|>", "--special", "<|pad|>"], check=True, capture_output=True)
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.get_vocab_size() == 1000, plain.get_vocab_size()
    rng = random.Random(2)
    texts = TEXTS + [random_text(rng) for _ in range(2000)] + [text.read_text()]
    ids = retort_json(retort, "encode", folder, texts)
    same("trained", ids, [plain.encode(t).ids for t in texts], texts)
    same("trained", retort_json(retort, "decode", folder, ids), texts, texts)


def complete(path, prompts):
    p = x.CommonParams()
    p.model.path, p.n_ctx, p.cpuparams.n_threads, p.warmup, p.verbosity = str(path), 512, 2, False, 0
    server, out = x.Server(p), []
    for prompt in prompts:
        reply = server.handle_completions({"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 20,
                                           "cache_prompt": False, "ignore_eos": True})
        assert "choices" in reply, reply
        first = reply["choices"][0]["logprobs"]["content"][0]
        out.append((reply["usage"]["prompt_tokens"], [(t["id"], round(t["logprob"], 4)) for t in first["top_logprobs"]]))
    return out


def check_exported(retort, folder, work, text):
    recipe = pathlib.Path(__file__).with_name("clients.yaml")
    lines = recipe.read_text().split("stages:")[0].replace("steps: 150", "steps: 12").replace("model:", "model:\n  vocabulary: 1024")
    stages = (f"stages:\n  - {{ name: text, kind: prepare, prepare: {{ tokenizer: {folder}, validation: 0.1 }} }}\n"
              "  - { name: model, kind: train }\n")
    (work / "bpe.yaml").write_text(lines + stages)
    subprocess.run([retort, "run", work / "bpe.yaml", "--set", f"run.dir={work / 'run'}", "--set", f"run.text={text}"],
                   check=True, capture_output=True)
    kept = json.loads((folder / "tokenizer.json").read_text())
    for file in folder.iterdir():  # the run has its own copy
        file.unlink()
    for format, out in (("hf", work / "hf"), ("gguf", work / "model.gguf")):
        subprocess.run([retort, "export", work / "run" / "model", "--format", format, "--type", "f32", "--out", out],
                       check=True, capture_output=True)
    assert json.loads((work / "hf" / "tokenizer.json").read_text())["model"] == kept["model"]
    rng = random.Random(3)
    texts = [t for t in TEXTS + [random_text(rng) for _ in range(300)] if t]
    ids = retort_json(retort, "encode", work / "hf", texts)
    auto = transformers.AutoTokenizer.from_pretrained(work / "hf")
    assert auto.eos_token == "<|endoftext|>", auto.eos_token
    same("AutoTokenizer", ids, [auto(t)["input_ids"] for t in texts], texts)
    same("read back from the GGUF", retort_json(retort, "encode", work / "model.gguf", texts), ids, texts)
    # llama.cpp's classes of characters are of an older Unicode: known characters only.
    some = [i for i, t in enumerate(texts) if len(ids[i]) < 400 and all(ord(c) < 0x3000 for c in t) and "\0" not in t][:60]
    by_text = complete(work / "model.gguf", [texts[i] for i in some])
    by_ids = complete(work / "model.gguf", [ids[i] for i in some])
    same("llama.cpp", by_text, by_ids, [texts[i] for i in some])
    return len(some)


def companions(first, word):
    """Files beside a vocabulary that holds `word`, and whose next free id is `first`."""
    def token(text, **flags):
        return {"content": text, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
                "special": True, **flags}
    decoder = {str(first): token("<|im_start|>", lstrip=True), str(first + 1): token("<|im_end|>"),
               str(first + 2): token("<x y>", special=False, normalized=True)}
    return {"none": {},
            "decoder": {"tokenizer_config.json": {"added_tokens_decoder": decoder, "eos_token": "<|im_end|>"}},
            "older": {"added_tokens.json": {"<|im_start|>": first, "<|im_end|>": first + 1},
                      "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
            "both": {"tokenizer_config.json": {"added_tokens_decoder": decoder, "eos_token": "<|im_end|>"},
                     "added_tokens.json": {"<|im_start|>": first, "<z>": first + 1},
                     "special_tokens_map.json": {"eos_token": "<z>"}},
            "named": {"tokenizer_config.json": {"sep_token": word, "eos_token": "<|endoftext|>"}}}


def check_companions(retort, folder, work):
    trained = json.loads((folder / "tokenizer.json").read_text())
    vocab, merges = trained["model"]["vocab"], trained["model"]["merges"]
    size = 1 + max(list(vocab.values()) + [t["id"] for t in trained["added_tokens"]])
    word = next(t for t in vocab if len(t) > 1 and t.isascii() and t.isalpha())
    pair = dict(vocab, **{t["content"]: t["id"] for t in trained["added_tokens"]})
    forms = {"tokenizer.json": {"tokenizer.json": json.dumps(trained)}}
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        forms[name] = {"vocab.json": json.dumps(pair), "merges.txt": "#version: 0.2\n" + "\n".join(
            m if isinstance(m, str) else " ".join(m) for m in merges) + "\n"}
    texts = [t for t in TEXTS if t] + ["hi  <|im_start|>hi  <|im_end|> <x y>the <z><|endoftext|>e\u0301 123"]
    for form, files in forms.items():
        for case, beside in companions(size, word).items():
            place = work / f"{form}-{case}"
            place.mkdir()
            for name, content in files.items():
                (place / name).write_text(content)
            config = dict(beside.get("tokenizer_config.json", {}))
            config["tokenizer_class"] = form if form.endswith("Tokenizer") else "PreTrainedTokenizerFast"
            for name, content in {**beside, "tokenizer_config.json": config}.items():
                (place / name).write_text(json.dumps(content))
            auto = transformers.AutoTokenizer.from_pretrained(place)
            theirs = [auto(t, add_special_tokens=False)["input_ids"] for t in texts]
            same(f"{form}, {case}", retort_json(retort, "encode", place, texts), theirs, texts)
    return len(forms)


def main(retort, run):
    check_bytes(run / "hf")
    data = pathlib.Path(os.environ.get("RETORT_TEST_DATA", "../shared/data"))
    with tempfile.TemporaryDirectory() as directory:
        work, text = pathlib.Path(directory), run.parent / "text.txt"
        published = check_published(retort, data, work) if data.is_dir() else 0
        if not published:
            print("no test data: published vocabularies are left out")
        check_trained(retort, work / "tokenizer", text)
        check_companions(retort, work / "tokenizer", work)
        in_llama = check_exported(retort, work / "tokenizer", work, text)
    print(f"PASS: bytes; {published} texts of published vocabularies; a trained vocabulary, exported, {in_llama} texts in "
          f"llama.cpp; tokenizers {tokenizers.__version__}, transformers {transformers.__version__}")


main(sys.argv[1], pathlib.Path(sys.argv[2]))
