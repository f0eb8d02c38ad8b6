"""A model without a tokenizer, exported to GGUF, in llama.cpp's library: loaded, and decoded from token ids.

usage: no_vocabulary_check.py RETORT RUN    (RUN is not used)

Its server aborts at any prompt for such a file, so the C API is called as it lies in xllamacpp. Structures are handed
through by value, unread: room enough for any of them.
"""
import ctypes, json, pathlib, subprocess, sys, tempfile
import numpy as np
import torch
import xllamacpp
from safetensors.numpy import load_file
from transformers import LlamaConfig, LlamaForCausalLM

SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
IDS = [1, 2, 3, 299, 17, 256]


class Struct(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_int64 * 256)]


def library():
    c = ctypes.CDLL(str(next(pathlib.Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    for name in ("llama_model_default_params", "llama_context_default_params", "llama_batch_get_one"):
        getattr(c, name).restype = Struct
    c.llama_log_set(SILENT, None)
    c.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Struct]
    c.llama_model_load_from_file.restype = ctypes.c_void_p
    c.llama_init_from_model.argtypes = [ctypes.c_void_p, Struct]
    c.llama_init_from_model.restype = ctypes.c_void_p
    c.llama_batch_get_one.argtypes = [ctypes.POINTER(ctypes.c_int32), ctypes.c_int32]
    c.llama_decode.argtypes = [ctypes.c_void_p, Struct]
    c.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    c.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    return c


def their_logits(path, vocabulary):
    c = library()
    model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    assert model, "llama.cpp does not load it"
    context = c.llama_init_from_model(model, c.llama_context_default_params())
    assert context, "no context"
    ids = (ctypes.c_int32 * len(IDS))(*IDS)
    assert c.llama_decode(context, c.llama_batch_get_one(ids, len(IDS))) == 0
    return np.array(c.llama_get_logits_ith(context, -1)[:vocabulary], np.float64)


def main():
    retort = sys.argv[1]
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as directory:
        folder, out = pathlib.Path(directory, "hf"), pathlib.Path(directory, "out")
        LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                     num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                                     initializer_range=0.2)).save_pretrained(folder)
        gguf = pathlib.Path(directory, "model.gguf")
        said = subprocess.run([retort, "export", folder, "--format", "gguf", "--out", gguf], check=True,
                              capture_output=True, text=True).stderr
        assert "llama_decode" in said, said
        pathlib.Path(directory, "ids.json").write_text(json.dumps([IDS]))
        subprocess.run([retort, "logits", folder, "--ids", pathlib.Path(directory, "ids.json"), "--out", out],
                       check=True, capture_output=True)
        ours = load_file(out)["logits"][0][-1].astype(np.float64)
        theirs = their_logits(gguf, 300)
    spread, difference = ours.std(), np.abs(ours - theirs).max()
    assert difference < 0.01 * spread, (difference, spread)  # its cache of keys and values is F16
    print(f"PASS no vocabulary: logits of 300 tokens within {difference / spread:.1e} of their spread")


main()
