#!/usr/bin/env python3
"""Two ranks beside one, and each way of dividing the state beside none: training steps of a byte model of 7M parameters.

usage: ranks.py RETORT [--rounds 5] [--steps 12] [--ranks 2] [--tokens 8192]

Every rank has one thread and is one process under mpirun; all train the same tokens. A round runs every arm once, in turns, and the
time is the trainer's own (result.json: without validation and saves, the first compile of nothing). The table has the median of
each round's ratio to its own plain run, with quartiles, by the clock and by CPU time of all ranks. "apart": the same, and each
collective is waited for where it is called (RETORT_COMM_OVERLAP=off), so that nothing overlaps with the backward pass.
"""
import argparse, json, os, pathlib, resource, statistics, subprocess, tempfile

RECIPE = """
run: {{ name: ranks, seed: 3, threads: 1, text: [{text}] }}
data: {{ train: stage:text, sequence: 256, batch_tokens: {tokens}, micro_batch: 4 }}
model: {{ context: 256, layers: 8, width: 256, heads: 8, ffn_width: 704 }}
train: {{ steps: {steps}, precision: fp32, schedule: {{ warmup: 1 }}, checkpoint_every: 0 }}
stages:
  - {{ name: text, kind: prepare }}
  - {{ name: model, kind: train }}
"""


def run(retort, folder, text, arm, ranks, steps, tokens):
    recipe = folder / "ranks.yaml"
    recipe.write_text(RECIPE.format(text=text, steps=steps, tokens=tokens))
    out = folder / arm.replace(", ", "-")
    launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
    sets = ["--set", f"run.dir={out}"] + (["--set", f"parallel.shard={arm.split(',')[0]}"] if ranks > 1 else [])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(launcher + [retort, "run", str(recipe), *sets], check=True, capture_output=True, stdin=subprocess.DEVNULL,
                   env=dict(os.environ, RETORT_COMM_OVERLAP="off" if arm.endswith(", apart") else "on"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads((out / "model" / "result.json").read_text())
    subprocess.run(["rm", "-rf", str(out)], check=True)
    return {"wall": result["seconds"], "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "stored": result["stored"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("retort")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=8192)
    arguments = parser.parse_args()
    os.environ.update(OMP_WAIT_POLICY="passive")
    policies = [policy + how for policy in ["none", "optimizer", "gradients", "parameters"] for how in ("", ", apart")]
    rounds = []
    with tempfile.TemporaryDirectory() as home:
        folder = pathlib.Path(home)
        text = folder / "text"
        text.write_bytes(bytes((i * i + i // 7) % 96 + 32 for i in range(200_000)))
        for _ in range(arguments.rounds):
            rounds.append({"one": run(arguments.retort, folder, text, "one", 1, arguments.steps, arguments.tokens)}
                          | {arm: run(arguments.retort, folder, text, arm, arguments.ranks, arguments.steps, arguments.tokens) for arm in policies})
    print(f"{rounds[0]['one']['stored']:,} parameters, {arguments.steps} steps of {arguments.tokens} tokens, {arguments.ranks} ranks of one thread, "
          f"{arguments.rounds} rounds")
    print("| | wall s | CPU s | beside one rank, by the clock | beside shard: none, by the clock | the same by CPU time |\n|---|---|---|---|---|---|")
    for arm in ["one"] + policies:
        def ratio(key, base, mine=False):
            values = [r[base][key] / r[arm][key] if not mine else r[arm][key] / r[base][key] for r in rounds]
            low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
            return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        seconds = statistics.median(r[arm]["wall"] for r in rounds)
        cpu = statistics.median(r[arm]["cpu"] for r in rounds)
        print(f"| {arm} | {seconds:.2f} | {cpu:.2f} | {ratio('wall', 'one')} | {ratio('wall', 'none', True)} | {ratio('cpu', 'none', True)} |")


main()
