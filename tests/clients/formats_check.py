"""Containers, read by their own libraries: safetensors checkpoints, GGUF blocks, TensorBoard events.

usage: formats_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)
"""
import pathlib, sys
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main():
    run = pathlib.Path(sys.argv[2])
    quantized, values = GGUFReader(run / "gguf" / "model.gguf"), GGUFReader(run / "values" / "model.gguf")
    by_name = {t.name: t for t in values.tensors}
    assert by_name.keys() == {t.name for t in quantized.tensors}
    blocks = 0
    for tensor in quantized.tensors:
        ours = by_name[tensor.name].data
        theirs = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(ours.shape)
        assert np.array_equal(theirs, ours), tensor.name  # zeros of either sign are equal
        blocks += tensor.tensor_type.name in ("Q4_0", "Q8_0")
    assert blocks > 0, "no quantized tensor in the file"

    checkpoint = (run / "qat" / "checkpoints" / "LATEST").read_text().strip()
    with safe_open(run / "qat" / "checkpoints" / checkpoint / "weights.safetensors", "np") as file:
        names = list(file.keys())
        assert "embed.weight" in names and "lm_head.weight" not in names, names
        assert sum("ffn" in n and "norm" not in n for n in names) == 3, names  # one FFN, stored once

    events = EventAccumulator(str(next((run / "teacher").rglob("events.out.tfevents.*")).parent))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert tags and all(np.isfinite(s.value) for tag in tags for s in events.Scalars(tag)), tags
    print(f"PASS formats: {len(quantized.tensors)} GGUF tensors equal ({blocks} in blocks), "
          f"{len(names)} checkpoint tensors, {len(tags)} TensorBoard tags")


main()
