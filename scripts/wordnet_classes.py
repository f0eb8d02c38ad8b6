#!/usr/bin/env python3
"""Makes a classification set of WordNet's glosses: what kind of thing a definition defines.

  apt-get install wordnet-base
  scripts/wordnet_classes.py runs/wordnet --classes animal,artifact,body,food,person,plant --train 400 --test 300

Writes train.jsonl and test.jsonl (fields text and label) and task.yaml, their description for `retort eval`, and prints
what two baselines get of the test set. Classes are lexicographer files (man lexnames), all 45 without --classes. A class
is named without its part of speech where that is enough. The SHA-256 of a gloss decides its side and the order of
records, so that any size is the beginning of a larger one.
"""
import argparse
import collections
import hashlib
import json
import math
import pathlib
import re

NOUNS = """Tops act animal artifact attribute body cognition communication event feeling food group location motive object
    person phenomenon plant possession process quantity relation shape state substance time""".split()
VERBS = """body change cognition communication competition consumption contact creation emotion motion perception possession
    social stative weather""".split()
FILES = (["adj.all", "adj.pert", "adv.all"] + ["noun." + n for n in NOUNS] + ["verb." + v for v in VERBS] + ["adj.ppl"])


def glosses(folder):
    """Every gloss once, without its examples, and the file of its first synset."""
    seen = {}
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence
            gloss = line.split(" | ", 1)[1].split('; "')[0].strip()
            if gloss:
                seen.setdefault(gloss, FILES[int(line.split(" ", 2)[1])])
    return seen


def chosen_names(classes):
    """{file: label} of the classes that were asked for."""
    files = [f for f in FILES if not classes or f in classes or f.split(".")[1] in classes]
    short = collections.Counter(f.split(".")[1] for f in files)
    return {f: f.split(".")[1] if short[f.split(".")[1]] == 1 else f for f in files}


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def naive_bayes(train):
    """Multinomial, one added to each count (Manning et al. 2008, Introduction to Information Retrieval, 13.2)."""
    counts, documents = collections.defaultdict(collections.Counter), collections.Counter()
    for text, label in train:
        counts[label].update(words(text))
        documents[label] += 1
    vocabulary = len(set().union(*counts.values()))
    totals = {label: sum(c.values()) + vocabulary for label, c in counts.items()}

    def score(text, label):
        return math.log(documents[label]) + sum(math.log((counts[label][w] + 1) / totals[label]) for w in words(text))

    return lambda text: max(sorted(counts), key=lambda label: score(text, label))


def tell(name, classify, test):
    share = sum(classify(text) == label for text, label in test) / len(test)
    print(f"{name}: {share:.4f} +- {math.sqrt(share * (1 - share) / (len(test) - 1)):.4f} of {len(test)}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=pathlib.Path)
    options.add_argument("--wordnet", type=pathlib.Path, default="/usr/share/wordnet")
    options.add_argument("--classes", type=lambda s: s.split(","), default=[])
    options.add_argument("--train", type=int, help="records; all when left out")
    options.add_argument("--test", type=int)
    options = options.parse_args()

    names = chosen_names(options.classes)
    sides = {"train": [], "test": []}
    for digest, gloss, file in sorted((hashlib.sha256(g.encode()).digest(), g, f)
                                      for g, f in glosses(options.wordnet).items() if f in names):
        sides["test" if digest[-1] % 5 == 0 else "train"].append((gloss, names[file]))
    train, test = sides["train"][:options.train], sides["test"][:options.test]

    options.out.mkdir(parents=True, exist_ok=True)
    for side, records in (("train", train), ("test", test)):
        lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in records)
        (options.out / f"{side}.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")
    (options.out / "task.yaml").write_text(
        "include: classification\ntask: wordnet\n"
        "dataset_kwargs: { data_files: { train: train.jsonl, test: test.jsonl } }\ntraining_split: train\n"
        f'doc_to_text: "{{{{text}}}}"\ndoc_to_choice: {json.dumps(sorted(names.values()))}\n')

    most = collections.Counter(label for _, label in train).most_common(1)[0][0]
    print(f"{len(train)} to train on, {len(test)} to test, {len(names)} classes; the most frequent is {most}")
    tell("majority", lambda text: most, test)
    tell("naive Bayes on words", naive_bayes(train), test)


main()
