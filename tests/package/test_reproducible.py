#!/usr/bin/env python3
"""The same source built twice, in different places, by the compiler itself, gives the same files, byte for byte."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "nomad-driver-jenkins-agent"


def build(copy, out, umask, variables):
    """Builds and packs a copy of the source from nothing: {file: sha256} of the plugin and of the packages."""
    begin = time.monotonic()
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("build", ".cache", ".git"))
    release = copy / out / "release"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000", "CCACHE_DISABLE": "1", **variables}
    for name in ("CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"):
        environment.pop(name, None)
    for command in (["cmake", "-S", copy, "-B", release, "-G", "Ninja", "-DSANITIZE=OFF"],
                    [copy / "scripts/package", release]):
        subprocess.run(command, env=environment, umask=umask, check=True, stdout=subprocess.DEVNULL)
    files = [release / "driver" / NAME, *(copy / out / "packages").glob(f"{NAME}_*_amd64.*")]
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for name, digest in sums.items():
        print(f"{digest}  {name}", flush=True)
    print(f"in {time.monotonic() - begin:.0f} s", flush=True)
    return sums


class ReproducibleTest(unittest.TestCase):
    def test_two_builds_in_two_directories(self):
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory)
            first = build(place / "one", "build", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8"})
            second = build(place / "further/elsewhere", "out", 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C"})
        self.assertEqual(sorted(pathlib.Path(name).suffix for name in first), ["", ".deb", ".gz"])
        self.assertEqual(first, second)


if __name__ == "__main__":
    unittest.main(verbosity=2)
