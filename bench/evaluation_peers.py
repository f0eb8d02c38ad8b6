#!/usr/bin/env python3
"""Described tasks in Retort beside lm-evaluation-harness: one model, the same documents, one thread, f32.

usage: evaluation_peers.py RETORT MODEL TASK.yaml=DOCUMENTS... [--rounds 3] [--batches 1,8,32]
       MODEL is a Hugging Face folder (retort export MODEL --format hf --type f32 --out FOLDER); a TASK is a
       description that both read, whose data_files have absolute paths. PyPI: torch, transformers, lm_eval.

The harness runs in this process, which has imported it and loaded the model before the first round; Retort is a process
of its own in each, timed with its start. CPU time is user and system time, wall time the clock's. The harness first runs
once with each batch size; the one of the least CPU time then takes turns with Retort. Bootstrap errors are off.
Figures must be equal in every round.
"""
import argparse, json, os, pathlib, resource, statistics, subprocess, sys, tempfile, time

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
                  TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")


def timed(who, work):
    """[seconds of CPU, seconds of the clock], and what the work returns."""
    before, start = resource.getrusage(who), time.perf_counter()
    out = work()
    wall, after = time.perf_counter() - start, resource.getrusage(who)
    return [after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall], out


def ours(retort, model, task, documents):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([retort, "eval", model, "--tasks", task, "--documents", str(documents), "--bootstrap", "0", "--out", out], check=True,
                       capture_output=True, stdin=subprocess.DEVNULL)
        return json.loads(next(pathlib.Path(out).glob("*/results_*.json")).read_text())["results"]


class Harness:
    def __init__(self, model, tasks):
        import torch
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        torch.set_num_threads(1)
        self.model = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
        self.evaluate = lm_eval.simple_evaluate
        self.manager = TaskManager(include_path=str(tasks[0].parent), include_defaults=False)

    def run(self, name, documents, batch):
        self.model.batch_size_per_gpu = batch
        return self.evaluate(model=self.model, tasks=[name], task_manager=self.manager, limit=documents, bootstrap_iters=0)["results"]


def check(mine, reference):
    for name, figures in reference.items():
        for key, value in figures.items():
            if isinstance(value, float):
                slack = 1e-9 if key.startswith(("acc", "exact_match")) else 1e-4 * abs(value)
                assert abs(mine[name][key] - value) <= slack, f"{name} {key}: retort {mine[name][key]}, harness {value}"


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(a, harness, task, documents):
    name = next(iter(ours(a.retort, a.model, task, 1)))  # and what is read from disk is in memory from here on
    start = timed(resource.RUSAGE_CHILDREN, lambda: ours(a.retort, a.model, task, 1))[0]
    harness.run(name, 1, 1)
    tried = {batch: timed(resource.RUSAGE_SELF, lambda: harness.run(name, documents, batch))[0] for batch in a.batches}
    best = min(tried, key=lambda batch: tried[batch][0])
    mine, theirs = [], []
    for _ in range(a.rounds):
        times, figures = timed(resource.RUSAGE_CHILDREN, lambda: ours(a.retort, a.model, task, documents))
        mine.append(times)
        times, reference = timed(resource.RUSAGE_SELF, lambda: harness.run(name, documents, best))
        theirs.append(times)
        check(figures, reference)
    cells = [f"{task.stem} ({documents})"]
    for kind in (0, 1):
        x, y = [t[kind] for t in mine], [t[kind] for t in theirs]
        cells += [spread(x), spread(y), f"{statistics.median(b / a for a, b in zip(x, y)):.2f}"]
    cells += [f"{start[0]:.2f}", ", ".join(f"{batch}: {t[0]:.1f}" for batch, t in tried.items())]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("retort", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("tasks", nargs="+", metavar="TASK.yaml=DOCUMENTS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=lambda text: [int(b) for b in text.split(",")], default=[1, 8, 32],
                        help="batch sizes that the harness is tried with")
    a = parser.parse_args()
    tasks = [(pathlib.Path(name), int(documents)) for name, documents in (task.rsplit("=", 1) for task in a.tasks)]
    harness = Harness(a.model, [task for task, _ in tasks])
    machine = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    print(next(line for line in machine.splitlines() if line.startswith("Model name")), f"\nload average {os.getloadavg()[0]:.1f} at the start\n")
    print("| task (documents) | retort, CPU s | lm-eval, CPU s | ratio | retort, wall s | lm-eval, wall s | ratio | retort's start, CPU s |"
          " lm-eval by batch size, CPU s |\n|---|--:|--:|--:|--:|--:|--:|--:|---|", flush=True)
    for task, documents in tasks:
        measure(a, harness, task, documents)
    print(f"\nload average {os.getloadavg()[0]:.1f} at the end")


main()
