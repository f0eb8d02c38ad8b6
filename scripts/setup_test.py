"""That scripts/setup.sh --cuda fetches what the torch wheel itself asks for, and once: from an index in a folder, of wheels of a
few bytes, so that no network is wanted. Ends with 77 where there is no pip."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

SETUP = pathlib.Path("scripts/setup.sh")
# What the torch wheel of this index asks for. Of cusparselt, the index has a later version alone, and one of the next number.
ASKED = ['cuda-toolkit[cublas,cufft]==13.0.2; platform_system == "Linux"', "filelock",
         'nvidia-cudnn-cu13==9.19.0; platform_system == "Linux"', 'nvidia-cusparselt-cu13==0.8.0; platform_system == "Linux"',
         'triton==3.6.0; platform_system == "Linux"']
LIBRARIES = {"cudnn": "nvidia/cudnn/lib/libcudnn.so.9", "cublas": "nvidia/cu13/lib/libcublas.so.13",
             "cufft": "nvidia/cu13/lib/libcufft.so.12", "cusparselt": "nvidia/cusparselt/lib/libcusparseLt.so.0"}


def check(held, what, output=""):
    if not held:
        sys.exit(f"{output}\nsetup_test: {what}")


def wheel(index, name, version, files=(), extras=(), requires=()):
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {one}" for one in requires]
    with zipfile.ZipFile(index / f"{stem}-py3-none-any.whl", "w") as out:
        out.writestr(f"{stem}.dist-info/METADATA", "\n".join(metadata) + "\n")
        out.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{stem}.dist-info/RECORD", "")
        for file in files:
            out.writestr(file, f"{name} {version}")


def make_index(index):
    index.mkdir()
    script = SETUP.read_text()
    pinned = dict(re.findall(r"^(\w+)=([\d.]+)$", script, re.M))
    for name, version in re.findall(r'^ *wheel ([a-z-]+) "?([\w.$]+)"?$', script, re.M):
        files = ["nvidia/cu13/bin/nvdisasm"] if name.endswith("nvdisasm") else []
        wheel(index, name, pinned.get(version.lstrip("$"), version), files, requires=ASKED if name == "torch" else ())
    wheel(index, "cuda-toolkit", "13.0.2", extras=["cublas", "cufft", "nvrtc"],
          requires=['nvidia-cublas==13.1.0; extra == "cublas"', 'nvidia-cufft==12.0.0; extra == "cufft"',
                    'nvidia-cuda-nvrtc==13.0.88; extra == "nvrtc"'])
    wheel(index, "nvidia-cublas", "13.1.0", [LIBRARIES["cublas"]])
    wheel(index, "nvidia-cufft", "12.0.0", [LIBRARIES["cufft"]])
    wheel(index, "nvidia-cudnn-cu13", "9.19.0", [LIBRARIES["cudnn"]], requires=["nvidia-cublas"])
    for version in ("0.8.1", "1.0.0"):
        wheel(index, "nvidia-cusparselt-cu13", version, [LIBRARIES["cusparselt"]])


def main():
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        print("skipped: there is no pip")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        make_index(root / "index")
        (root / "bin").mkdir()
        says_installed = root / "bin/dpkg-query"  # Debian's packages are none of this
        says_installed.write_text("#!/bin/sh\necho install ok installed\n")
        says_installed.chmod(0o755)
        deps = root / "deps"
        here = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "RETORT_DEPS": str(deps), "RETORT_CACHE": str(root),
                             "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "index"), "PIP_CONFIG_FILE": os.devnull}

        def setup(*arguments):
            ran = subprocess.run([SETUP, *arguments], env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            check(ran.returncode == 0, f"{arguments} ends with {ran.returncode}", ran.stdout)
            return ran.stdout

        def there():
            return {name for name, file in LIBRARIES.items() if (deps / file).exists()}

        output = setup()
        check(not there(), f"without --cuda there are {there()}", output)
        output = setup("--cuda")
        check(there() == set(LIBRARIES), f"there are only {there()}", output)
        found = (deps / LIBRARIES["cusparselt"]).read_text()
        check(found == "nvidia-cusparselt-cu13 0.8.1", f"for version 0.8.0 came {found}", output)
        fetched = set(re.findall(r"unpacking (\w+)-[\d.]+-py3", output))
        check(fetched == {"cuda_toolkit", "nvidia_cublas", "nvidia_cufft", "nvidia_cudnn_cu13", "nvidia_cusparselt_cu13"},
              f"it has fetched {sorted(fetched)}", output)
        check(setup("--cuda") == "", "a second run does something")


if __name__ == "__main__":
    main()
