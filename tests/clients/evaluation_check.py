"""A real model on described tasks, in lm-evaluation-harness: SmolLM2-135M-Instruct, read by transformers.

usage: evaluation_check.py RETORT [RUN]    (RUN, which tests/clients/run.sh passes, is not used)

Three tasks of the test data: choices, a continuation, and generated answers. Prompts are equal letter for letter,
log-likelihoods within 1e-3, greedy flags, generated texts, what filters take out of them, and accuracies equal.
Both compute in f32.
"""
import json, os, pathlib, subprocess, sys, tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import smollm2

TASKS = {"arc_easy": 20, "lambada_openai": 20, "gsm8k": 3}  # and how many documents of each


def ours(retort, model, description, documents, out):
    """The task's figures, and its samples by document and filter."""
    subprocess.run([retort, "eval", model, "--tasks", description, "--documents", str(documents), "--bootstrap", "0", "--out", out],
                   check=True, capture_output=True)
    results = json.loads(next(out.glob("*/results_*.json")).read_text())["results"]
    lines = next(out.glob("*/samples_*.jsonl")).read_text().splitlines()
    return next(iter(results.values())), {(s["doc_id"], s["filter"]): s for s in map(json.loads, lines)}


def arguments(sample):
    """Contexts and continuations; of a generated answer the prompt."""
    given = sample["arguments"]
    given = [list(one.values()) for one in given.values()] if isinstance(given, dict) else [list(one) for one in given]
    return [[part for part in one if isinstance(part, str)] for one in given]


def compare(task, theirs, mine):
    """The largest difference of a log-likelihood, and how many numbers were compared."""
    worst = count = 0
    assert len(theirs) == len(mine), (len(theirs), len(mine))
    for sample in theirs:
        where = f"{task}, document {sample['doc_id']}"
        own = mine[sample["doc_id"], sample["filter"]]
        assert arguments(own) == arguments(sample), f"{where}: prompts differ:\n{arguments(own)}\n{arguments(sample)}"
        for (a,), (b,) in zip(own["resps"], sample["resps"], strict=True):
            count += 1
            if isinstance(b, str):
                assert a == b, f"{where}: answers differ:\nretort  {a!r}\nharness {b!r}"
                continue
            difference = abs(float(a[0]) - float(b[0]))
            worst = max(worst, difference)
            assert difference < 1e-3, f"{where}: log-likelihood {a[0]}, the harness has {b[0]}"
            assert a[1] == str(bool(b[1])), f"{where}: greedy is {a[1]}, the harness has {b[1]}"
        if sample["filter"] != "none":
            assert own["filtered_resps"] == list(sample["filtered_resps"]), where
    return worst, count


def main():
    retort, model = sys.argv[1], smollm2.model()
    smollm2.data()
    import torch
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(1)
    harness = HFLM(pretrained=str(model.parent), gguf_file=model.name, dtype="float32", device="cpu", batch_size=1)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        smollm2.task_files(work)
        manager = TaskManager(include_path=str(work), include_defaults=False)
        for task, documents in TASKS.items():
            figures, samples = ours(retort, model, work / f"{task}.yaml", documents, work / task)
            name = f"{task}_local"
            theirs = lm_eval.simple_evaluate(model=harness, tasks=[name], task_manager=manager, limit=documents,
                                             log_samples=True, bootstrap_iters=0)
            worst, count = compare(task, theirs["samples"][name], samples)
            shown = []
            for key, value in theirs["results"][name].items():
                if key.startswith(("acc", "exact_match")) and "stderr" not in key:
                    assert abs(figures[key] - value) < 1e-12, f"{task} {key}: {figures[key]}, the harness has {value}"
                    shown.append(f"{key} {value:.4g}")
            said = f"log-likelihoods within {worst:.1e}" if worst else "texts equal"
            print(f"PASS lm_eval {task}: {documents} documents, {count} answers, {said}; {', '.join(shown)}", flush=True)


main()
