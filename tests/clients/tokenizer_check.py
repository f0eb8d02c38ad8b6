"""The byte tokenizer of an exported Hugging Face folder, as `tokenizers` and `transformers` see it.

usage: tokenizer_check.py [RETORT] DIR    (DIR: the folder, or a finished tests/clients/clients.yaml)

Ids must be the bytes of the UTF-8 text, and decoding must give the text back. Prints PASS or raises.
"""
import pathlib
import random
import sys

import tokenizers
import transformers

TEXTS = [
    "",
    "In the beginning God created the heaven and the earth.",
    "  two spaces,\ttab,\nnewline\r\n\n\n and a trailing space ",
    "qz QZ a's it's 1234567890 !?#",
    "h\u00e9llo w\u00f6rld \u00e6\u00df \u0416 \u4e2d\u6587 \u0e44\u0e17\u0e22 \U0001f600\u200d\U0001f600 e\u0301",
    "".join(chr(c) for c in range(0x800)),  # every one-byte and two-byte character
    "\u0120the <|endoftext|> <s> </s> [PAD] \u2581",
]


def random_text(rng):
    return "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))
                   for _ in range(rng.randrange(1, 60)))


def check(name, encode, decode, texts):
    for text in texts:
        ids = encode(text)
        assert ids == list(text.encode()), f"{name}: {text!r} became {ids}"
        assert decode(ids) == text, f"{name}: {text!r} came back as {decode(ids)!r}"


def main(folder):
    if (folder / "hf").is_dir():
        folder = folder / "hf"
    rng = random.Random(0)
    texts = TEXTS + [random_text(rng) for _ in range(200)]
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.get_vocab_size() == 256, plain.get_vocab_size()
    check("tokenizers", lambda t: plain.encode(t).ids, lambda i: plain.decode(i), texts)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(auto) == 256, len(auto)
    check("AutoTokenizer", lambda t: auto(t)["input_ids"], lambda i: auto.decode(i), texts)
    # Every byte stands alone, also those that no UTF-8 text holds.
    lead = plain.decode([0xE4, 0xB8, 0xAD])
    assert lead == "\u4e2d" and plain.decode([0xFF]) == "\ufffd", lead
    print(f"PASS: {len(texts)} texts, ids are bytes in tokenizers {tokenizers.__version__} "
          f"and transformers {transformers.__version__}")


main(pathlib.Path(sys.argv[-1]))
