"""A drafter in llama.cpp: speculative decoding of a target with its own student.

usage: drafter_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. Both as F32 GGUFs, llama.cpp's DRAFT_SIMPLE drafts K tokens a round with the student; the greedy text is the one that
   the target writes alone.
2. The tokens a round that it gets on that text are those that `retort eval TARGET --drafter DRAFT` says, within 5 %: llama.cpp
   counts from the prompt's end, and its last round may be cut short.
"""
import json, pathlib, subprocess, sys, tempfile
import xllamacpp as x
from llamacpp_check import server_parameters

PROMPT, TOKENS, DRAFTED = "And God said", 440, 4


def drafting_server(target, draft):
    p = server_parameters(target)
    p.n_parallel = 1
    p.speculative.types = [x.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    p.speculative.draft.mparams.path = str(draft)
    p.speculative.draft.n_max, p.speculative.draft.n_min, p.speculative.draft.p_min = DRAFTED, 0, 0.0
    p.speculative.draft.cache_type_k = p.speculative.draft.cache_type_v = x.ggml_type.GGML_TYPE_F32
    return x.Server(p)


def write(server):
    reply = server.handle_completions({"prompt": PROMPT, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False,
                                       "ignore_eos": True})
    assert "choices" in reply, reply
    return reply["choices"][0]["text"], reply["timings"]


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    draft = run / "values" / "model.gguf"
    with tempfile.TemporaryDirectory() as work:
        target, text, figures = (pathlib.Path(work, name) for name in ("target.gguf", "text.txt", "figures.json"))
        subprocess.run([retort, "export", run / "teacher", "--format", "gguf", "--type", "f32", "--out", target],
                       check=True, capture_output=True)
        alone, _ = write(x.Server(server_parameters(target)))
        drafted, timings = write(drafting_server(target, draft))
        assert drafted == alone, f"drafting changes the greedy text:\nalone   {alone!r}\ndrafted {drafted!r}"
        assert timings["draft_n"] > 0, timings
        text.write_text(PROMPT + alone)
        subprocess.run([retort, "eval", target, "--drafter", draft, "--text", text, "--drafted", str(DRAFTED), "--tasks",
                        "drafting", "--json", figures], check=True, capture_output=True)
        ours = json.loads(figures.read_text())
    rounds = timings["predicted_n"] - timings["draft_n_accepted"]
    theirs = timings["predicted_n"] / rounds
    assert abs(ours["greedy_tokens_per_round"] / theirs - 1) < 0.05, (ours, timings)
    print(f"PASS drafter: greedy text unchanged, {theirs:.3f} tokens a round in llama.cpp "
          f"({timings['draft_n_accepted']} of {timings['draft_n']} drafted accepted), ours {ours['greedy_tokens_per_round']:.3f}")


main()
