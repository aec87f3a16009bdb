#!/usr/bin/env python3
"""The package's life in a clean root beside a real Nomad, with a real agent amid a build: install, upgrade, remove, purge."""
import os
import pathlib
import re
import subprocess
import unittest

from packing import NAME, output, pack

from fixtures import module_controller, program_job
from machine import CACHE, main, nomad_binary, require, wait_for
from nomad_agent import NomadAgent
from traces import executable, our_processes, remove_nomad_cgroups, sandboxed_processes

CLEAN_ROOT = CACHE / "clean-root"
STATE = pathlib.Path(f"/var/lib/{NAME}")
NODE = "linux-1"
AGENT = 'agent {\n url = "%s"\n name = "%s"\n }'


def setUpModule():
    global scratch, package, unpacked, controller
    require()
    if not CLEAN_ROOT.is_dir():
        raise unittest.SkipTest("needs .cache/clean-root (scripts/setup)")
    scratch, package, unpacked = pack()
    controller = module_controller(scratch, [NODE])
    controller.launch()


class CleanRoot:
    """A copy of a minimal Debian as the root of a mount namespace; the host of a Nomad agent.

    No chroot: who enters a mount namespace of the driver's has that one's root, whatever the root was before.
    enter: the beginning of a command line that runs there; path: its root as it is seen from here.
    """

    address = "127.0.0.1"
    MAKE = """
set -e
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
for name in proc sys dev; do mount --rbind "/$name" "$2/root/$name"; done
mount -t tmpfs tmpfs "$2/root/tmp"
for shared in "$2" "$3"; do mkdir -p "$2/root$shared"; mount --bind "$shared" "$2/root$shared"; done
cd "$2/root"
pivot_root . mnt
umount -l /mnt
echo made
exec sleep infinity
"""

    def __init__(self):
        for name in ("root", "upper", "work"):
            (scratch.path / name).mkdir()
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", self.MAKE, "sh", CLEAN_ROOT.resolve(), scratch.path,
             pathlib.Path(nomad_binary()).resolve().parent], stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "made\n":
            raise AssertionError("no clean root")
        self.path = pathlib.Path(f"/proc/{self.holder.pid}/root")
        self.enter = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--"]

    def remove(self):
        self.holder.kill()
        self.holder.communicate()

    def run(self, *command, code=0):
        """The output of a command that ends with `code`."""
        run = subprocess.run([*self.enter, *map(str, command)], text=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                             env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        if run.returncode != code:
            raise AssertionError(f"{command}: {run.returncode}\n{run.stdout}")
        return run.stdout


class LifeTest(unittest.TestCase):
    """One story; the tests are its steps, in the order of their names."""

    @classmethod
    def setUpClass(cls):
        cls.root = CleanRoot()
        cls.addClassCleanup(cls.root.remove)
        cls.addClassCleanup(remove_nomad_cgroups)
        cls.file = cls.root.path / "opt/nomad/plugins" / NAME
        cls.state = cls.root.path / STATE.relative_to("/")
        cls.older = scratch.path / "older.deb"
        cls.older.write_bytes(package.read_bytes())
        control = unpacked / "DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*", "Version: 99", control.read_text(), flags=re.M))
        cls.newer = scratch.path / "newer.deb"
        output("dpkg-deb", "-b", unpacked, cls.newer)

    def test_1_it_is_not_configured_without_what_it_needs(self):
        self.assertIn("depends on libcurl4", self.root.run("dpkg", "-i", self.older, code=1))
        self.root.run("dpkg", "--purge", NAME)
        self.assertFalse(self.file.exists())

    def test_2_installed_with_apt_it_runs(self):
        self.root.run("apt-get", "-qq", "-y", "--no-install-recommends", "install", self.older,
                      "openjdk-17-jre-headless", "libisal2", "libprometheus-cpp-pull1.0")
        self.assertIn(NAME, self.root.run(NAME, "version"))
        self.assertEqual(self.root.run("dpkg", "--verify", NAME), "")

    def test_3_an_upgrade_leaves_a_running_agent_alone(self):
        cls = type(self)
        cls.nomad = NomadAgent(scratch, dev=False, host=self.root, plugins=pathlib.Path("/opt/nomad/plugins"), state=STATE)
        cls.addClassCleanup(cls.nomad.stop)
        self.nomad.start()
        controller.wait_ready()
        self.nomad.run_job_text(program_job("agent", AGENT % (controller.url, NODE), "service", memory=512,
                                            lines='env {\n JENKINS_SECRET = "%s"\n }' % controller.secret))
        cls.allocation = self.nomad.allocation("agent")
        self.nomad.wait_task(self.allocation, "running", 30)
        controller.wait_online(NODE)
        controller.create_job("long", NODE, "echo begun; while [ ! -e /local/end ]; do sleep 0.2; done; echo ended")
        cls.build = controller.trigger("long")
        controller.wait_console("long", self.build, "begun")
        cls.jvm = self.agent()
        old = self.file.stat().st_ino
        self.root.run("dpkg", "-i", self.newer)
        self.assertNotEqual(self.file.stat().st_ino, old)
        self.assertEqual(self.agent(), self.jvm)
        self.assertTrue(self.plugin().endswith(" (deleted)"), self.plugin())

    def test_4_nomad_restarted_runs_the_new_file_and_the_same_agent(self):
        self.nomad.end()
        self.nomad.start()
        self.assertEqual(self.plugin(), f"/opt/nomad/plugins/{NAME}")
        self.assertEqual(self.agent(), self.jvm)
        self.assertEqual(self.nomad.task(self.allocation)["State"], "running")

    def test_5_removed_and_purged_it_leaves_the_agent_and_says_what_stays(self):
        self.root.run("dpkg", "--remove", NAME)
        self.assertFalse(self.file.exists())
        self.assertIn(f"stay in {STATE}", self.root.run("dpkg", "--purge", NAME))
        self.assertEqual(self.agent(), self.jvm)
        self.assertTrue(list((self.state / "tasks").iterdir()))

    def test_6_the_build_ends_well(self):
        directory = next(path for path in self.nomad.allocation_directories() if path.name == self.allocation)
        (directory / "agent/local/end").touch()
        build = controller.wait_build("long", self.build)
        self.assertEqual((build.result, build.node), ("SUCCESS", NODE), build.console)
        self.nomad.stop_job("agent")
        wait_for("the agent to end", lambda: not sandboxed_processes(), 30)

    def test_7_nothing_else_of_it_is_left(self):
        left = self.root.run("find", "/", "-xdev", "-name", "*jenkins*", "-not", "-path", f"{STATE}/*")
        self.assertEqual(left.split(), [str(STATE)])

    def agent(self):
        """The pid of the agent's JVM."""
        found = [pid for pid in sandboxed_processes() if os.path.basename(executable(pid)) == "java"]
        self.assertEqual(len(found), 1, our_processes())
        return found[0]

    def plugin(self):
        """The file that the plugin was started from, as the clean root has it."""
        files = [executable(pid) for pid, line in our_processes().items()
                 if line.startswith(f"/opt/nomad/plugins/{NAME}")]
        self.assertTrue(files, our_processes())
        return files[0]


if __name__ == "__main__":
    main(hide=("/run",))
