"""The package of the release build that DRIVER_BINARY names, made and unpacked once for a test's module."""
import pathlib
import subprocess
import sys
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from machine import DRIVER, ROOT, Scratch

NAME = "nomad-driver-jenkins-agent"
BUILD = DRIVER.resolve().parents[1]


def output(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, **options).stdout


def pack():
    """Scratch directory, the .deb, and the directory that it is unpacked in, with DEBIAN/ as its control files."""
    scratch = Scratch()
    unittest.addModuleCleanup(scratch.remove)
    output(ROOT / "scripts/package", BUILD)
    package = next((BUILD.parent / "packages").glob("*.deb"))
    unpacked = scratch.path / "unpacked"
    output("dpkg-deb", "-R", package, unpacked)
    return scratch, package, unpacked
