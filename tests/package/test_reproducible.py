#!/usr/bin/env python3
"""The same source built in another directory, by the compiler itself, gives the same package, byte for byte."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def sums(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*_amd64.*")}


class ReproducibleTest(unittest.TestCase):
    def test_two_builds_in_two_directories(self):
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000", "CCACHE_DISABLE": "1"}
        subprocess.run([ROOT / "scripts/package"], env=environment, check=True)
        with tempfile.TemporaryDirectory() as directory:
            copy = pathlib.Path(directory) / "elsewhere"
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("build", ".cache", ".git"))
            build = copy / "out/release"
            subprocess.run(["cmake", "-S", copy, "-B", build, "-G", "Ninja", "-DSANITIZE=OFF"], check=True,
                           stdout=subprocess.DEVNULL)
            subprocess.run([copy / "scripts/package", build], env=environment, check=True)
            first, second = sums(ROOT / "build/packages"), sums(copy / "out/packages")
        self.assertEqual(len(first), 2)
        self.assertEqual(first, second)


if __name__ == "__main__":
    unittest.main(verbosity=2)
