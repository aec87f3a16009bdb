"""Runs each fuzz program of build/fuzz for FUZZ_SECONDS (5) from its seeds.

A finding is kept beside the program as crash-<digest>; run the program with that file to see it again.
"""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import seeds

BUILD = seeds.ROOT / "build" / "fuzz" / "tests" / "fuzz"
SECONDS = os.environ.get("FUZZ_SECONDS", "5")
# What comes from the network: longer where there is time.
OF_IMAGES = dict.fromkeys(("image_documents", "layer", "docker_archive"), os.environ.get("FUZZ_SECONDS_OF_IMAGES", SECONDS))


class Fuzz(unittest.TestCase):
    def run_target(self, name):
        program = BUILD / f"{name}_fuzz"
        if not program.exists():
            self.skipTest(f"needs {program.relative_to(seeds.ROOT)}, which clang-14 and "
                          "libclang-rt-14-dev build")
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(seeds.ALL[name]()):
                pathlib.Path(corpus, f"seed{number}").write_bytes(seed)
            result = subprocess.run(
                [program, f"-max_total_time={OF_IMAGES.get(name, SECONDS)}", "-timeout=10", "-rss_limit_mb=2048",
                 "-max_len=65536", "-print_final_stats=1", f"-artifact_prefix={BUILD}/{name}-", corpus],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                check=False)
        self.assertEqual(result.returncode, 0, result.stdout[-6000:])
        runs = re.search(r"number_of_executed_units: (\d+)", result.stdout)
        covered = re.findall(r"cov: (\d+)", result.stdout)
        print(f"{name}: {runs[1]} inputs, {covered[-1]} edges", flush=True)


for target in seeds.ALL:
    setattr(Fuzz, f"test_{target}", lambda self, name=target: self.run_target(name))

if __name__ == "__main__":
    unittest.main(verbosity=2)
