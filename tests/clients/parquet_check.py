"""What `retort data prepare` reads out of a Parquet file is what pyarrow wrote: text columns of several types,
encodings and compressions, and lists of structs."""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import h5py
import pyarrow as pa
import pyarrow.parquet as pq


def prepared(retort, path, out, *flags):
    """The prepared text as bytes, and how many documents and learned tokens it has."""
    run = subprocess.run([retort, "data", "prepare", path, "--out", out, "--validation", "0", *flags],
                         check=True, capture_output=True, text=True)
    with h5py.File(pathlib.Path(out) / "train" / "shard-00000.h5") as shard:
        tokens = bytes(shard["tokens"][:].astype("uint8"))
        mask = shard["loss_mask"][:] if "loss_mask" in shard else None
        starts = shard["documents"][:]
    documents = [tokens[a:b].decode() for a, b in zip(starts, starts[1:])]
    return documents, tokens, mask, run.stderr


def texts(count):
    draw = random.Random(7)
    alphabet = "abc \n\u00fc\u20ac\U0001f600"
    return ["".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 60))) for _ in range(count)]


def check_columns(retort, work):
    wanted = texts(3000)
    with_gaps = [None if i % 11 == 3 else text for i, text in enumerate(wanted)]
    kept = [text for text in with_gaps if text]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        for compression in ("none", "snappy", "gzip", "zstd", "brotli", "lz4"):
            path = work / "columns.parquet"
            table = pa.table({"id": list(range(len(wanted))), "body": pa.array(with_gaps, pa.string()).cast(kind)})
            pq.write_table(table, path, compression=compression, row_group_size=700, data_page_version="2.0")
            out = tempfile.mkdtemp(dir=work)
            documents, *_ = prepared(retort, path, out, "--field", "body")
            assert documents == kept, (kind, compression)


def check_chats(retort, work):
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}]
             for q, a in zip(texts(500), texts(501)[1:])]
    path = work / "chats.parquet"
    pq.write_table(pa.table({"messages": pa.array(chats, kind)}), path)
    out = tempfile.mkdtemp(dir=work)
    documents, tokens, mask, _ = prepared(retort, path, out, "--messages", "messages", "--chat-template", "chatml")
    expected = ["".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat) for chat in chats]
    assert documents == expected
    learned = bytes(t for t, keep in zip(tokens, mask) if keep).decode()
    assert learned == "".join(chat[1]["content"] + "<|im_end|>" for chat in chats)


def main():
    retort = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        check_columns(retort, pathlib.Path(folder))
        check_chats(retort, pathlib.Path(folder))
    print(json.dumps({"parquet": "equal", "pyarrow": pa.__version__}))


if __name__ == "__main__":
    main()
