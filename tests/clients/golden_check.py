"""Families against transformers on models of other seeds, widths and depths than the golden files'.

usage: golden_check.py RETORT RUN    (RUN is not used)

Makes golden models with ../shared/tools/make_golden.py ($RETORT_GOLDEN_TOOL) and runs the room's own golden test on
them: logits, loss, every gradient, ten AdamW losses, greedy ids, and bf16; of BitNet too, which the golden files
lack. Skips aloud without the tool.
"""
import contextlib, importlib.util, io, os, pathlib, subprocess, sys, tempfile

CASES = [dict(seed=11, scale=1, layers=4), dict(seed=12, scale=2, layers=3), dict(seed=13, scale=3, layers=1)]


def with_bitnet(tf, configs, scale):
    return configs | {"bitnet": (tf.BitNetForCausalLM, tf.BitNetConfig(
        hidden_size=64 * scale, intermediate_size=128 * scale, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=256, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=0))}


def deepen(config, layers):
    config.num_hidden_layers = layers  # GPT-2's n_layer too
    if getattr(config, "layer_types", None):
        every = 3 if "sliding_attention" in config.layer_types else 1
        config.layer_types = ["sliding_attention" if (n + 1) % every else "full_attention" for n in range(layers)]


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    tool = pathlib.Path(os.environ.get("RETORT_GOLDEN_TOOL", root.parent / "shared" / "tools" / "make_golden.py"))
    tests = pathlib.Path(sys.argv[1]).resolve().parents[1] / "tests" / "models" / "test_models"
    if not tool.exists() or not tests.exists():
        print(f"SKIP golden: needs {tool} and {tests}")
        return
    spec = importlib.util.spec_from_file_location("make_golden", tool)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    golden.tf.utils.logging.disable_progress_bar()
    count = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as data:
            for name, (cls, config) in with_bitnet(golden.tf, golden.configs(case["scale"]), case["scale"]).items():
                deepen(config, case["layers"])
                with contextlib.redirect_stdout(io.StringIO()):
                    golden.golden(name, cls, config, pathlib.Path(data, "models", "tiny", name), case["seed"])
                count += 1
            done = subprocess.run([tests, "--gtest_filter=Tiny/Golden.*", "--gtest_brief=1"], capture_output=True,
                                  text=True, env={**os.environ, "RETORT_TEST_DATA": data})
            assert done.returncode == 0 and "SKIPPED" not in done.stdout, f"{case}: {done.stdout}{done.stderr}"
    print(f"PASS golden: {count} models, " + "; ".join(f"seed {c['seed']}, width {64 * c['scale']}, "
                                                    f"{c['layers']} layers" for c in CASES))


main()
