#!/usr/bin/env python3
"""The tests of cgroups, sandbox, supervisor and escapes on cgroup v2 and Debian's Linux 6.1, emulated by QEMU.

The programs are those of build/release (target `vm_programs`; CMakeLists.txt is their list). Without KVM: it
hangs on some machines that offer it. The machine has no network card.

GTEST_FILTER and GTEST_REPEAT of the environment hold in the machine, too, for work on a single test.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import console
import images

ROOT = images.HERE.parents[1]
KERNEL = ROOT / ".cache" / "vm-kernel"
BUILT = ROOT / "build" / "release" / "tests" / "vm"
QEMU = "qemu-system-x86_64"
MACHINE_SECONDS = 1700  # below ctest's limit; a quiet machine needs a fifth
PROGRAM_SECONDS = 600
TAIL = 3000  # characters of each console


def lines_of(path):
    return path.read_text().split() if path.exists() else []


def what_is_missing(programs):
    """Why the machine cannot be started here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root: the files of its disk are root's"
    for program in (QEMU, "mke2fs", "mkswap", "cpio", "busybox"):
        if shutil.which(program) is None:
            return f"needs {program} (scripts/setup --for test)"
    if not KERNEL.exists():
        return "needs Debian's cloud kernel in .cache/vm-kernel (scripts/setup --for test)"
    if not programs or not all(os.path.exists(program) for program in programs):
        return "needs the target vm_programs in build/release (scripts/test builds it)"
    return ""


def kernel_arguments():
    # What the kernel does not know goes to the first program's environment.
    passed = [f"{name}={os.environ[name]}" for name in ("GTEST_FILTER", "GTEST_REPEAT") if name in os.environ]
    return " ".join(["console=ttyS0", "panic=-1", "mitigations=off", *passed])


def boot(directory):
    """Runs the machine to its end. Returns (what init said, what the kernel said, whether it was in time)."""
    kernel = next(KERNEL.glob("boot/vmlinuz-*"))
    drives = [f"file={directory / name},format=raw,if=virtio,cache=unsafe" for name in ("disk", "swap")]
    # setpriv: it ends with this process, also when that is killed.
    command = ["setpriv", "--pdeathsig=KILL", QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
               "-m", "2048", "-nic", "none", "-display", "none", "-no-reboot", "-kernel", kernel,
               "-initrd", directory / "initramfs", "-append", kernel_arguments(),
               "-serial", f"file:{directory / 'kernel.log'}", "-serial", f"file:{directory / 'init.log'}",
               "-drive", drives[0], "-drive", drives[1]]
    in_time = True
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=MACHINE_SECONDS)
    except subprocess.TimeoutExpired:
        in_time = False
    said, kernel_said = ((directory / name).read_text(errors="replace").replace("\r", "")
                         for name in ("init.log", "kernel.log"))
    return said, kernel_said, in_time


class Machine(unittest.TestCase):
    def test_everything_passes_on_cgroup_v2(self):
        programs, started = lines_of(BUILT / "programs"), lines_of(BUILT / "started")
        if missing := what_is_missing(programs):
            self.skipTest(missing)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ja-vm-") as name:
            directory = pathlib.Path(name)
            images.make_images(directory, KERNEL, programs, started, PROGRAM_SECONDS)
            made = time.monotonic()
            said, kernel_said, in_time = boot(directory)
        print(said)
        ran, skipped = console.counts(said)
        print(f"vm: {ran} tests, {skipped} of them skipped; images {made - begun:.0f} s, "
              f"machine {time.monotonic() - made:.0f} s", flush=True)
        found = console.complaints(programs, said, kernel_said)
        if not in_time:
            found.append(f"the machine was ended after {MACHINE_SECONDS} s")
        if found:
            self.fail("\n".join([*found, "-- last words of the kernel:", kernel_said[-TAIL:],
                                 "-- of init:", said[-TAIL:]]))


GOOD = """== kernel 6.1
== run /b/a_test
[ RUN      ] A.One
[       OK ] A.One (0 ms)
[ RUN      ] Kind/A.Two/x
a.cc:1: Skipped
needs more
[  SKIPPED ] Kind/A.Two/x (0 ms)
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Kind/A.Two/x
== status 0
== end
"""


class Console(unittest.TestCase):
    def complaints(self, text, kernel_log=""):
        return console.complaints(["/b/a_test"], text, kernel_log)

    def test_a_good_run_is_counted(self):
        self.assertEqual(self.complaints(GOOD), [])
        self.assertEqual(console.counts(GOOD), (2, 1))

    def test_a_failure_is_named(self):
        text = GOOD.replace("[       OK ] A.One", "[  FAILED  ] A.One").replace("status 0", "status 1")
        self.assertEqual(self.complaints(text), ["a_test: A.One failed"])

    def test_a_failed_parameter_is_named(self):
        text = GOOD.replace("[       OK ] A.One (0 ms)", "[  FAILED  ] A.One, where GetParam() = (7, 8) (0 ms)")
        self.assertEqual(self.complaints(text), ["a_test: A.One failed"])

    def test_a_missing_end_is_a_failure(self):
        self.assertEqual(self.complaints(GOOD.replace("== end\n", "")), ["the machine did not reach its end"])

    def test_a_program_that_stops_in_the_middle(self):
        text = GOOD[:GOOD.index("[       OK ]")]
        self.assertEqual(self.complaints(text), ["a_test: did not end, in A.One", "the machine did not reach its end"])
        self.assertEqual(self.complaints(text + "== status 139\n== end\n"),
                         ["a_test: ended with status 139, in A.One"])
        self.assertEqual(self.complaints(text + "== status 124\n== end\n"), ["a_test: took too long, in A.One"])

    def test_a_panic_is_a_failure(self):
        self.assertEqual(self.complaints(GOOD, "[ 1.0] x\n[ 2.0] Kernel panic - not syncing: y\n"),
                         ["[ 2.0] Kernel panic - not syncing: y"])

    def test_no_tests_are_a_failure(self):
        self.assertEqual(self.complaints("== run /b/a_test\n== status 0\n== end\n"), ["a_test: ran no test"])
        self.assertEqual(self.complaints("== end\n"), ["a_test: was not run"])
        self.assertEqual(console.complaints([], "== end\n", ""), ["there is no program to run"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
