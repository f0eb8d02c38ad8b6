#!/usr/bin/env python3
"""Whole training steps in Retort beside the same in PyTorch, eager and compiled: one thread, one model, one batch.

usage: step_peers.py BENCH_STEP [--cases step7m,distill7m] [--precisions fp32,bf16] [--rounds 7] [--rows 16] [--no-compile]
       PyPI: torch 2.11.0 (with its dependencies), in an environment of its own; torch.compile wants g++.

Every side is a process of its own that reads the weights and the batch from one file. First loss and gradients of each are
held against f64 (this process, PyTorch); then the sides step in turns, the first of a round another each time. CPU time
is user and system time of all threads. Ours is the faster by the median of each round's ratio, with quartiles. The share
is of the rate of LibTorch's best product in 0.2 s (of the shape in kernels/cpu_tuning.h, in the step's precision, by CPU time) before
the same round's step of ours; attention counts the causal half, and in brackets the whole square, as plan/flops.h has it. Below the
table stand the rates, our share of that of f32, which may be the higher one for bf16 too, and our share of the mean product's rate: on a
machine that others disturb no step runs at the best product's pace. After the race the losses must agree: all have learned the same.
"""
import argparse, json, math, os, pathlib, statistics, struct, subprocess, sys, tempfile, time

# Peers keep freed pages too, which Retort does by itself; MKL and libgomp see one thread.
SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}
if __name__ == "__main__" and any(os.environ.get(key) != value for key, value in SETTINGS.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | SETTINGS)  # both libraries read them as they are loaded

import torch
import torch.nn.functional as F
from torch import nn

LR, CLIP, DECAY, BETAS = 1e-3, 1.0, 0.1, (0.9, 0.95)


def read(path):
    """The tensors of a safetensors file, by name."""
    data = bytearray(pathlib.Path(path).read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    types = {"F32": torch.float32, "I64": torch.int64, "BF16": torch.bfloat16, "F64": torch.float64}
    out = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = torch.frombuffer(data[8 + length + begin:8 + length + end], dtype=types[entry["dtype"]]).view(entry["shape"]).clone()
    return out


class Block(nn.Module):
    def __init__(self, width, ffn_width):
        super().__init__()
        linear = lambda a, b: nn.Linear(a, b, bias=False)
        self.attn_norm, self.ffn_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attn = nn.ModuleDict({name: linear(width, width) for name in "qkvo"})
        self.ffn = nn.ModuleDict({"gate": linear(width, ffn_width), "up": linear(width, ffn_width), "down": linear(ffn_width, width)})

    def forward(self, x, cos, sin):
        h = self.attn_norm(x)
        q, k, v = (self.attn[name](h).unflatten(-1, (-1, 32)).transpose(1, 2) for name in "qkv")
        turn = lambda y: y * cos + torch.cat((-y[..., 16:], y[..., :16]), -1) * sin
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + self.attn["o"](y.transpose(1, 2).flatten(2))
        h = self.ffn_norm(x)
        return x + self.ffn["down"](F.silu(self.ffn["gate"](h)) * self.ffn["up"](h))


class Decoder(nn.Module):
    """Pre-norm, rotary (half-split), SwiGLU, no biases, tied head: logits."""

    def __init__(self, weights, prefix):
        super().__init__()
        weights = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        vocabulary, width = weights["embed.weight"].shape
        layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, len(weights["layers.0.ffn.up.weight"])) for _ in range(layers))
        self.final_norm = nn.RMSNorm(width, eps=1e-5)
        self.load_state_dict(weights)
        angles = torch.outer(torch.arange(256, dtype=torch.float64), 10000.0 ** (-torch.arange(16, dtype=torch.float64) / 16)).repeat(1, 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return F.linear(self.final_norm(x), self.embed.weight)


class Peer:
    """The same step in PyTorch, as one would write it."""

    def __init__(self, path, precision, compiled, exact=False):
        weights = read(path)
        self.tokens, self.labels = weights.pop("tokens"), weights.pop("labels")
        self.student = Decoder(weights, "student.")
        self.teacher = Decoder(weights, "teacher.").requires_grad_(False) if any(n.startswith("teacher.") for n in weights) else None
        if exact:
            self.student, self.teacher = self.student.double(), self.teacher and self.teacher.double()
        del weights
        self.autocast = precision == "bf16"
        self.loss = torch.compile(self.plain_loss) if compiled else self.plain_loss
        matrices = [p for n, p in self.student.named_parameters() if p.dim() == 2 and n != "embed.weight"]
        others = [p for n, p in self.student.named_parameters() if p.dim() == 1 or n == "embed.weight"]
        if not exact:
            self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
                                               lr=LR, betas=BETAS, eps=1e-8, fused=True)

    def plain_loss(self, tokens, labels):
        logits = self.student(tokens).flatten(0, 1)
        if self.teacher is None:
            return F.cross_entropy(logits, labels.flatten())
        with torch.no_grad():
            target = F.log_softmax(self.teacher(tokens).flatten(0, 1), dim=-1)
        return F.kl_div(F.log_softmax(logits, dim=-1), target, reduction="batchmean", log_target=True)

    def backward(self):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = self.loss(self.tokens, self.labels)
        loss.backward()
        return loss

    def gradients(self):
        loss = self.backward().item()
        gradients = {n: p.grad.clone() for n, p in self.student.named_parameters()}
        self.student.zero_grad(set_to_none=True)
        return loss, gradients

    def step(self):
        loss = self.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def status_mib(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key + ":"))


def serve(path, precision, mode):
    """The commands of bench_step."""
    before = status_mib("VmRSS")
    peer = Peer(path, precision, mode == "compile")
    for line in map(str.strip, sys.stdin):
        if line == "step":
            wall, cpu = time.perf_counter(), time.process_time()
            loss = peer.step()
            answer = {"cpu": 1e3 * (time.process_time() - cpu), "wall": 1e3 * (time.perf_counter() - wall), "loss": loss}
        elif line.startswith("check "):
            loss, gradients = peer.gradients()
            torch.save(gradients, line.removeprefix("check "))
            answer = {"loss": loss}
        else:
            answer = {"before": before, "peak": status_mib("VmHWM")}
        print(json.dumps(answer), flush=True)


class Side:
    def __init__(self, name, command):
        self.name, self.steps = name, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"{self.name} has ended"
        return json.loads(answer)

    def end(self):
        facts = self.ask("facts")
        self.process.stdin.close()
        assert self.process.wait() == 0
        return facts


def check(sides, path, folder):
    """The largest error of loss and of any gradient (of its largest element), of each side; ours at most twice eager's."""
    exact_loss, exact = Peer(path, "fp32", False, exact=True).gradients()
    errors = {}
    for side in sides:
        file = folder / side.name
        loss = side.ask(f"check {file}")["loss"]
        found = read(file) if side.name == "retort" else torch.load(file)
        assert found.keys() == exact.keys(), sorted(found.keys() ^ exact.keys())
        errors[side.name] = (abs(loss - exact_loss) / exact_loss,
                             max(((found[n].double() - g).abs().max() / g.abs().max()).item() for n, g in exact.items()))
    for mine, eager in zip(errors["retort"], errors["eager"]):
        assert mine <= 2 * eager + 2.0**-23, errors
    return errors


def quartiles(values, digits=2):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def race(a, case, precision):
    with tempfile.TemporaryDirectory() as home:
        folder = pathlib.Path(home)
        path = folder / "given"
        subprocess.run([a.bench_step, case, "write", path, str(a.rows)], check=True)
        script = [sys.executable, __file__]
        sides = [Side("retort", [a.bench_step, case, "serve", path, precision])]
        sides += [Side(mode, [*script, "--serve", path, precision, mode]) for mode in ["eager"] + ["compile"] * a.compile]
        errors = check(sides, path, folder)
        for side in sides:
            side.ask("step")  # warm
        for r in range(a.rounds):
            for side in sides[r % len(sides):] + sides[:r % len(sides)]:
                side.steps.append(side.ask("step"))
        return sides, errors, {side.name: side.end() for side in sides}


def report(a, case, precision):
    sides, errors, facts = race(a, case, precision)
    ours = sides[0]
    for side in sides:
        final = [side.steps[-1]["loss"], ours.steps[-1]["loss"]]
        assert math.isclose(*final, rel_tol=0.05 if precision == "bf16" else 0.01), (side.name, final)
        cells = [f"{case} {precision}", side.name]
        for kind in ("cpu", "wall"):
            cells.append(f"{statistics.median(s[kind] for s in side.steps):.0f}")
            cells.append("" if side is ours else quartiles([s[kind] / o[kind] for s, o in zip(side.steps, ours.steps)]))
        share = lambda attention: [(facts["retort"]["products"] + attention * facts["retort"]["attention"]) / 1e6 / s["cpu"] / o["ceiling"]
                                   for s, o in zip(side.steps, ours.steps)]
        cells.append(f"{quartiles(share(0.5))} ({statistics.median(share(1.0)):.2f})")
        memory = facts[side.name]
        cells.append(f"{memory['peak'] - memory['before']:.0f} ({memory['peak']:.0f})")
        cells.append("{:.0e}, {:.0e}".format(*errors[side.name]))
        print("| " + " | ".join(cells) + " |", flush=True)
    rates = {name: quartiles([o[name] for o in ours.steps], 0) for name in ("ceiling", "mean", "f32_ceiling")}
    of = lambda rate: quartiles([(facts["retort"]["products"] + 0.5 * facts["retort"]["attention"]) / 1e6 / o["cpu"] / o[rate] for o in ours.steps])
    return (f"{case} {precision}: products {rates['ceiling']} GF/s ({facts['retort']['library']}), in the mean {rates['mean']}, of f32 {rates['f32_ceiling']}; "
            f"ours {of('mean')} of the mean, {of('f32_ceiling')} of that of f32; {facts['retort']['products'] / 1e9:.0f} GFLOP of products a step")


def main():
    if sys.argv[1:2] == ["--serve"]:
        return serve(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_step", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["step7m", "distill7m"])
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=16, help="of 256 tokens")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    a = parser.parse_args()
    machine = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    print(next(line for line in machine.splitlines() if line.startswith("Model name")))
    print(f"torch {torch.__version__}, {a.rows} rows of 256 tokens, {a.rounds} rounds, load average {os.getloadavg()[0]:.1f} at the start\n")
    print("| step | | CPU ms | ours is faster by | wall ms | ours is faster by | share of the products' rate | peak MiB above start (whole) |"
          " error of loss, gradients |\n|---|---|--:|--:|--:|--:|--:|--:|---|", flush=True)
    notes = [report(a, case, precision) for precision in a.precisions for case in a.cases]
    print("\n" + "\n".join(notes) + f"\nload average {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
