#!/usr/bin/env python3
"""Any program as a task: start, stop, exit code."""
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import unittest

import cluster
from fixtures import module_nomad, module_scratch, run_program, shell


def setUpModule():
    global nomad
    nomad = module_nomad(module_scratch())


class ProgramTest(unittest.TestCase):
    def test_long_running_program_is_stopped(self):
        allocation = run_program(self, nomad, "sleep", 'command = "/bin/sleep"\n args = ["600"]', "service")
        nomad.wait_task(allocation, "running", 30)
        inside = cluster.sandboxed_processes()
        self.assertTrue(any("/bin/sleep 600" in line for line in inside.values()), inside)
        nomad.stop_job("sleep", purge=False)
        nomad.wait_task(allocation, "dead", 30)
        terminated = nomad.wait_event(allocation, "^Terminated", 5)
        self.assertEqual((terminated["Details"]["exit_code"], terminated["Details"]["signal"]), ("143", "15"),
                         nomad.story(allocation))
        self.assertEqual(cluster.sandboxed_processes(), {})

    def test_exit_code_and_output(self):
        allocation = run_program(self, nomad, "seven", shell("echo out; echo err >&2; exit 7"))
        task = nomad.wait_task(allocation, "dead", 30)
        self.assertTrue(task["Failed"])
        self.assertEqual(nomad.wait_event(allocation, "^Terminated", 5)["Details"]["exit_code"], "7")
        self.assertEqual(nomad.logs(allocation, "stdout"), "out\n")
        self.assertEqual(nomad.logs(allocation, "stderr"), "err\n")

    def test_success_of_a_batch_task(self):
        allocation = run_program(self, nomad, "fine", 'command = "/bin/true"')
        self.assertFalse(nomad.wait_task(allocation, "dead", 30)["Failed"], nomad.story(allocation))

    def run_trap(self, name):
        """A program that answers SIGHUP by exit 9."""
        allocation = run_program(self, nomad, name, shell("trap 'exit 9' HUP; echo ready; while :; do sleep 0.1; done"),
                                 "service")
        nomad.wait_task(allocation, "running", 30)
        cluster.wait_for("the program's first word", lambda: "ready" in nomad.logs(allocation, "stdout"), 20)
        return allocation

    def test_signal_by_the_operator(self):
        allocation = self.run_trap("signalled")
        nomad.command("alloc", "signal", "-s", "SIGHUP", allocation)
        nomad.wait_task(allocation, "dead", 30)
        self.assertEqual(nomad.wait_event(allocation, "^Terminated", 5)["Details"]["exit_code"], "9")

    def test_exec_by_the_operator(self):
        allocation = self.run_trap("executed")
        shell = ("alloc", "exec", "-t=false", "-i=false", allocation, "/bin/sh", "-c")
        self.assertEqual(nomad.command(*shell, "echo $NOMAD_TASK_DIR"), "/local\n")
        nomad.command(*shell, "exit 5", ok=(5,))
        self.assertIn("exec /no/such: No such file or directory",
                      nomad.command(*shell[:-2], "/no/such", ok=(1,)))

    def test_exec_on_a_terminal(self):
        allocation = self.run_trap("typed")
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        shell = subprocess.Popen([nomad.binary, "alloc", "exec", "-t", "-i", allocation, "/bin/sh"],
                                 env=nomad.environment(), stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = []

        def show():
            # EIO: the other side of the terminal is closed.
            with contextlib.suppress(OSError):
                while piece := os.read(ours, 4096):
                    shown.append(piece)

        reader = threading.Thread(target=show)
        reader.start()
        try:
            os.write(ours, b"stty size; tty; sleep 1000\n")
            cluster.wait_for("the terminal's answer", lambda: b"/dev/pts/0" in b"".join(shown), 20)
            cluster.wait_for("the program on it", lambda: any(
                "sleep 1000" in line for line in cluster.sandboxed_processes().values()), 20)
            os.write(ours, b"\x03")
            os.write(ours, b"exit 6\n")
            self.assertEqual(shell.wait(20), 6, b"".join(shown))
        finally:
            shell.kill()
            shell.wait()
            reader.join()
            os.close(ours)
        self.assertIn(b"31 97\r\n", b"".join(shown))
        self.assertFalse(any("sleep 1000" in line for line in cluster.sandboxed_processes().values()))

    def test_memory_limit_is_told(self):
        allocation = run_program(self, nomad, "hungry", 'command = "/usr/bin/python3"\n args = ["-c", "x = b\'x\' * (512 << 20)"]')
        nomad.wait_task(allocation, "dead", 30)
        details = nomad.wait_event(allocation, "^Terminated", 5)["Details"]
        self.assertEqual(details["oom_killed"], "true", nomad.story(allocation))
        nomad.wait_event(allocation, r"out of memory: the kernel killed the task's program \(pid \d+\); limit \d+ MiB", 5)

    def test_child_killed_for_memory_is_an_event(self):
        allocation = run_program(self, nomad, "hungry-child", 'command = "/bin/sh"\n args = ["-c", "tail /dev/zero; sleep 600"]',
                                  "service")
        nomad.wait_event(allocation, r"out of memory: the kernel killed tail \(pid \d+\); limit (\d+) MiB, peak \1 MiB; "
                                     "the task goes on", 60)
        self.assertEqual(nomad.task(allocation)["State"], "running")

    def test_cpu_hard_limit_is_the_tasks_part_of_the_node(self):
        allocation = run_program(self, nomad, "capped", 'command = "/bin/sleep"\n args = ["600"]\n cpu_hard_limit = true', "service")
        nomad.wait_task(allocation, "running", 30)
        pid = next(pid for pid, line in cluster.sandboxed_processes().items() if "/bin/sleep 600" in line)
        quota = cluster.cpu_quota(pid)
        self.assertGreater(quota, 0)
        self.assertLess(quota, 1, "the job asks for less than a core")


if __name__ == "__main__":
    cluster.main()
