#!/usr/bin/env python3
"""log_collection = "driver": the operator sees the logs as ever, and Nomad starts no log helper."""
import subprocess
import unittest

import cluster
from fixtures import module_nomad, module_scratch, run_program, shell

OPTIONS = """log_collection = "driver"
    logs {
      max_files     = 2
      max_file_size = 1
    }"""


def setUpModule():
    global nomad
    nomad = module_nomad(module_scratch(), options=OPTIONS)


class OwnLogsTest(unittest.TestCase):
    def log_directory(self, allocation):
        return nomad.data / "alloc" / allocation / "alloc/logs"

    def test_the_operators_commands_show_the_output(self):
        script = "for i in $(seq 1 300); do echo line-$i; done; echo problem >&2; " \
                 "until [ -e /local/go ]; do sleep 0.1; done; echo last; exec sleep 600"
        allocation = run_program(self, nomad, "talker", shell(script), "service")
        nomad.wait_task(allocation, "running", 30)
        helpers = [line for line in cluster.our_processes().values() if "logmon" in line]
        self.assertEqual(helpers, [])
        self.assertEqual(sorted(path.name for path in self.log_directory(allocation).iterdir()),
                         ["agent.stderr.0", "agent.stdout.0"])

        everything = "".join(f"line-{i}\n" for i in range(1, 301))
        cluster.wait_for("the program's words", lambda: nomad.logs(allocation, "stderr") == "problem\n", 20)
        self.assertEqual(nomad.command("alloc", "logs", allocation, "agent"), everything)
        self.assertEqual(nomad.command("alloc", "logs", "-stderr", allocation, "agent"), "problem\n")
        self.assertEqual(nomad.command("alloc", "logs", "-tail", "-n", "3", allocation, "agent"),
                         "line-298\nline-299\nline-300\n")

        with subprocess.Popen([nomad.binary, "alloc", "logs", "-f", "-stdout", allocation, "agent"],
                              env=nomad.environment(), stdout=subprocess.PIPE, text=True) as follower:
            try:
                for expected in everything.splitlines():
                    self.assertEqual(follower.stdout.readline().rstrip(), expected)
                (nomad.data / "alloc" / allocation / "agent/local/go").touch()
                self.assertEqual(follower.stdout.readline(), "last\n")
            finally:
                follower.kill()

    def test_rotated_files_are_one_log(self):
        # 2.4 MB in files of 1 MiB, of which two are kept.
        script = "seq 100000 399999 | sed s/$/-/; until [ -e /local/go ]; do sleep 0.1; done"
        allocation = run_program(self, nomad, "rotating", shell(script), "service")
        nomad.wait_task(allocation, "running", 30)
        logs = self.log_directory(allocation)
        cluster.wait_for("the last line", lambda: "399999-\n" in nomad.logs(allocation, "stdout"), 30)
        self.assertEqual(sorted(path.name for path in logs.glob("agent.stdout.*")),
                         ["agent.stdout.1", "agent.stdout.2"])
        lines = nomad.command("alloc", "logs", allocation, "agent").splitlines()
        self.assertEqual(lines, [f"{i}-" for i in range(400000 - len(lines), 400000)])
        self.assertGreater(len(lines), 131072)

    def test_the_log_of_a_task_that_ended_is_whole(self):
        allocation = run_program(self, nomad, "short", shell("echo out; echo err >&2; exit 7"))
        nomad.wait_task(allocation, "dead", 30)
        self.assertEqual(nomad.logs(allocation, "stdout"), "out\n")
        self.assertEqual(nomad.logs(allocation, "stderr"), "err\n")

    def test_a_job_without_logs(self):
        allocation = run_program(self, nomad, "silent", shell("echo out; exit 0"), lines="logs {\n disabled = true\n }")
        self.assertFalse(nomad.wait_task(allocation, "dead", 30)["Failed"], nomad.story(allocation))
        self.assertEqual(list(self.log_directory(allocation).iterdir()), [])


if __name__ == "__main__":
    cluster.main()
