"""A conversation with a real model, in transformers: SmolLM2-135M-Instruct, its own chat template, three greedy turns.

usage: chat_check.py RETORT [RUN]    (RUN, which tests/clients/run.sh passes, is not used)

Answers are the same letter for letter, though Retort keeps keys and values between turns and transformers here reads
all of the conversation at every turn. Both compute in f32.
"""
import json, os, pathlib, subprocess, sys, tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import smollm2

SYSTEM = "You answer in one short sentence."
LINES = ["What is the capital of France?", "And of Italy?", "Which of the two is larger?"]
TOKENS = 48


def ours(retort, model):
    with tempfile.TemporaryDirectory() as work:
        saved = pathlib.Path(work, "talk.json")
        said = subprocess.run([retort, "chat", model, "--system", SYSTEM, "--tokens", str(TOKENS)], check=True, capture_output=True,
                              text=True, input="\n".join([*LINES, f"/save {saved}", ""])).stdout
        talk = json.loads(saved.read_text())
    answers = [m["content"] for m in talk if m["role"] == "assistant"]
    assert said == "".join(answer + "\n" for answer in answers), (said, answers)
    return answers


def theirs(model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    source = dict(pretrained_model_name_or_path=str(model.parent), gguf_file=model.name)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    network = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    talk, answers = [{"role": "system", "content": SYSTEM}], []
    for line in LINES:
        talk.append({"role": "user", "content": line})
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = network.generate(**ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=tokenizer.eos_token_id,
                                   pad_token_id=tokenizer.eos_token_id)
        answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))
        talk.append({"role": "assistant", "content": answers[-1]})
    return answers


def main():
    model = smollm2.model()
    mine, reference = ours(sys.argv[1], model), theirs(model)
    for line, a, b in zip(LINES, mine, reference, strict=True):
        assert a == b, f"{line}\nretort       {a!r}\ntransformers {b!r}"
    print(f"PASS transformers chat: {len(mine)} answers of a conversation equal, {sum(map(len, mine))} letters")


main()
