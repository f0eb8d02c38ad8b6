"""What an export says of itself, in the software that reads it.

usage: card_check.py RETORT RUN    (RUN: a finished tests/clients/clients.yaml)

1. huggingface_hub's ModelCard reads the card of every exported folder, with the license and the base that the export
   was told, and a library and a task that the Hub knows.
2. gguf-py finds both in a GGUF under its own names of the keys.
"""
import pathlib, subprocess, sys, tempfile

from gguf import GGUFReader
from gguf.constants import Keys
from huggingface_hub import ModelCard

BASE, LICENSE = "Some-Organization/Some-Model", "apache-2.0"


def exported(retort, model, format, out):
    subprocess.run([retort, "export", model, "--format", format, "--out", out, "--license", LICENSE, "--base-model", BASE], check=True,
                   capture_output=True)
    return out


def check_folder(folder, library):
    data = ModelCard.load(folder / "README.md").data
    found = (data.license, data.base_model, data.library_name, data.pipeline_tag)
    assert found == (LICENSE, BASE, library, "text-generation"), f"{folder}: {found}"


def check_gguf(file):
    fields = GGUFReader(file).fields
    organization, name = BASE.split("/")
    for key, value in {Keys.General.LICENSE: LICENSE, Keys.General.BASE_MODEL_COUNT: 1,
                       Keys.General.BASE_MODEL_NAME.format(id=0): name,
                       Keys.General.BASE_MODEL_ORGANIZATION.format(id=0): organization,
                       Keys.General.BASE_MODEL_REPO_URL.format(id=0): f"https://huggingface.co/{BASE}"}.items():
        assert fields[key].contents() == value, f"{key}: {fields[key].contents()!r}, expected {value!r}"


def main():
    retort, run = sys.argv[1], pathlib.Path(sys.argv[2])
    for folder in ("hf", "dora-merged", "lora-peft"):
        assert ModelCard.load(run / folder / "README.md").data.library_name, folder
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        check_folder(exported(retort, run / "qat", "hf", work / "hf"), "transformers")
        check_folder(exported(retort, run / "lora", "peft", work / "peft"), "peft")
        check_gguf(exported(retort, run / "qat", "gguf", work / "m.gguf"))
    print("PASS cards: huggingface_hub reads those of five folders, gguf-py the keys of a GGUF")


if __name__ == "__main__":
    main()
