"""`retort run` under torchrun: its ranks join over TCP, at the agent's own store and at rank 0's, and their
checkpoint is one process's, byte for byte."""
import os
import pathlib
import subprocess
import sys
import tempfile

RECIPE = """
run: { name: torchrun, seed: 3, threads: 1, text: [TEXT] }
data: { train: stage:text, validation: stage:text, sequence: 64, batch_tokens: 512, micro_batch: 4 }
model: { context: 64, layers: 2, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 12, precision: fp32, schedule: { warmup: 2 } }
stages:
  - { name: text, kind: prepare, prepare: { tokenizer: bytes, validation: 0.1 } }
  - { name: model, kind: train }
"""


def weights(directory):
    checkpoints = directory / "model" / "checkpoints"
    newest = checkpoints / (checkpoints / "LATEST").read_text().strip()
    return {path.name: path.read_bytes() for path in newest.iterdir()}


def main(retort):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        text = work / "text.txt"
        text.write_text("".join(f"In line {i} is {i * i}, and then comes the next.\n" for i in range(400)))
        recipe = work / "recipe.yaml"
        recipe.write_text(RECIPE.replace("TEXT", str(text)))

        def run(name, *launcher):
            command = [*launcher, retort, "run", str(recipe), "--set", f"run.dir={work / name}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})
            assert done.returncode == 0, done.stderr[-4000:]
            return weights(work / name), done.stderr

        alone, _ = run("alone")
        torchrun = [str(pathlib.Path(sys.executable).with_name("torchrun")), "--no-python", "--nproc-per-node", "2"]
        for name, flags in {"standalone": ["--standalone"], "static": ["--master-port", "29517"]}.items():
            together, said = run(name, *torchrun, *flags)
            assert "rank 0 of 2 over tcp" in said, said[-4000:]
            assert together == alone, f"{name}: the checkpoint differs from one process's"
            print(f"torchrun {name}: 2 ranks over tcp, the checkpoint of one process, byte for byte")


main(sys.argv[1])
