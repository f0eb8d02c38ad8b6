#!/usr/bin/env python3
"""Makes conversations of WordNet's words: what one means, a sentence with it, and a word for the same.

  apt-get install wordnet-base
  scripts/wordnet_chats.py runs/text/chats.jsonl --count 500

Each record has messages of two, four or six turns, as far as WordNet answers. The SHA-256 of a word and its gloss decides
the order, so that any number is the beginning of a larger one.
"""
import argparse
import hashlib
import json
import pathlib
import re


def synsets(folder):
    """Words, gloss and examples of every synset."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence
            facts, gloss = line.split(" | ", 1)
            fields = facts.split()
            words = [re.sub(r"\(.*\)$", "", w).replace("_", " ") for w in fields[4:4 + 2 * int(fields[3], 16):2]]
            meaning, *examples = (s.strip(' "') for s in gloss.strip().split('; "'))
            yield words, meaning, examples


def sentence(text):
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def conversation(words, meaning, examples):
    word, *others = words
    shown = [e for e in examples if e and re.search(rf"\b{re.escape(word)}\b", e, re.IGNORECASE)]
    turns = [(f'What does "{word}" mean?', sentence(meaning))]
    if shown:
        turns.append(("Use it in a sentence.", sentence(shown[0])))
    if others:
        turns.append(("Which word means the same?", sentence(others[0])))
    return [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=pathlib.Path)
    options.add_argument("--wordnet", type=pathlib.Path, default="/usr/share/wordnet")
    options.add_argument("--count", type=int, help="conversations; all when left out")
    options = options.parse_args()

    chats = {}
    for words, meaning, examples in synsets(options.wordnet):
        if meaning:
            digest = hashlib.sha256(f"{words[0]}\n{meaning}".encode()).digest()
            chats.setdefault(digest, conversation(words, meaning, examples))
    chosen = [chats[digest] for digest in sorted(chats)[:options.count]]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in chosen), "utf-8")
    print(f"{len(chosen)} conversations, {sum(len(messages) for messages in chosen) // 2} answers")


main()
