#!/usr/bin/env python3
"""The example job as it is: an agent connects, a build runs in its sandbox, the secret stays secret."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

import cluster
from cluster import Snapshot
from fixtures import module_controller, module_nomad, module_scratch
from machine import DRIVER, wait_for

NODE = "linux-1"

# Run by a build: what the sandbox looks like from inside, as KEY=VALUE lines.
PROBE = r"""
set +x
probe() { printf 'probe:%s=%s\n' "$1" "$2"; }
probe uid "$(id -u)"
probe gid "$(id -g)"
probe pid1 "$(cat /proc/1/comm 2>/dev/null)"
probe parent "$(cat /proc/$PPID/comm)"
probe parent_pid "$PPID"
probe pids "$(ls -d /proc/[0-9]* | wc -l)"
probe comms "$(cat /proc/[0-9]*/comm 2>/dev/null | sort -u | tr '\n' ' ')"
for name in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do
  probe $name "$(sed -n "s/^$name:[[:space:]]*//p" /proc/self/status)"
done
probe root "$(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \/ \([^ ]*\) .*/\1/p' /proc/self/mountinfo | tail -n1)"
for path in /probe /usr/probe /etc/probe /bin/probe; do
  if (: > $path) 2>/dev/null; then probe "writable:$path" yes; else probe "writable:$path" no; fi
done
for path in /tmp/probe /local/probe "$WORKSPACE/probe"; do
  if (: > $path) 2>/dev/null; then probe "writable:${path##/*/workspace/*/}" yes; else probe "writable:$path" no; fi
done
if (echo x > /proc/sys/kernel/domainname) 2>/dev/null; then probe proc_sys writable; else probe proc_sys closed; fi
if (echo x > /proc/sysrq-trigger) 2>/dev/null; then probe sysrq writable; else probe sysrq closed; fi
probe shadow "$(cat /etc/shadow 2>/dev/null | wc -c)"
probe host_tmp "$(ls -d /tmp/jae-* 2>/dev/null | wc -l)"
probe mounts "$(wc -l < /proc/self/mountinfo)"
probe environment "$(env | cut -d= -f1 | sort | tr '\n' ' ')"
"""


def setUpModule():
    global scratch, nomad, controller, allocation, before
    scratch = module_scratch()
    before = Snapshot()
    controller = module_controller(scratch, [NODE])
    controller.launch()
    nomad = module_nomad(scratch, dev=False)  # state on disk: one test reads it
    controller.wait_ready()
    nomad.put_variable(f"nomad/jobs/{cluster.EXAMPLE_JOB_ID}", {"secret": controller.secret})
    nomad.run_job(cluster.EXAMPLE_JOB, url=controller.url, name=NODE)
    allocation = nomad.allocation(cluster.EXAMPLE_JOB_ID)
    nomad.wait_task(allocation, "running", 30)
    try:
        controller.wait_online(NODE)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{nomad.story(allocation)}\n{nomad.logs(allocation, 'stderr')}\n"
                             f"{nomad.driver_log()[-6000:]}") from None


class AgentBuildTest(unittest.TestCase):
    def test_build_runs_on_the_node(self):
        build = controller.build("hello", NODE, "echo on $NODE_NAME")
        print(build.console)
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertEqual(build.node, NODE)
        self.assertIn(f"on {NODE}", build.console)

    def test_agents_output_is_in_the_task_log(self):
        log = nomad.logs(allocation, "stderr")
        for line in ("Locating server among", "Connected"):
            self.assertIn(line, log)

    def test_events_tell_the_start(self):
        event = nomad.wait_event(allocation, r"^Driver: .*connected", 10)
        details = event["Details"]
        for key in ("sandbox_ms", "jar_ms", "launched_ms", "locating_ms", "handshaking_ms", "connected_ms"):
            self.assertRegex(details.get(key, "missing"), r"^\d+(\.\d+)?$", key)
        self.assertLessEqual(float(details["launched_ms"]), float(details["connected_ms"]))
        sandbox = nomad.wait_event(allocation, r"^Driver: sandbox ready in \d+\.\d ms: plan ", 5)["Details"]
        self.assertEqual(
            set(sandbox) & {"plan_ms", "spawn_ms", "cgroups_ms", "root_ms", "launch_ms"},
            {"plan_ms", "spawn_ms", "cgroups_ms", "root_ms"},
        )
        types = [each["Type"] for each in nomad.task(allocation)["Events"]]
        nomads = [each for each in types if each != "Driver"]  # ours may overtake "Started"
        self.assertEqual(nomads[:3], ["Received", "Task Setup", "Started"], nomad.story(allocation))
        self.assertLessEqual(len(types), 7, nomad.story(allocation))

    def test_several_builds_one_after_the_other(self):
        controller.create_job("again", NODE, "echo $BUILD_NUMBER > marker; sleep 0.2; cat marker")
        for _ in range(3):
            build = controller.wait_build("again", controller.trigger("again"))
            self.assertEqual(build.result, "SUCCESS", build.console)

    def test_failing_build_leaves_the_agent_alone(self):
        build = controller.build("failing", NODE, "exit 3")
        self.assertEqual(build.result, "FAILURE", build.console)
        self.assertTrue(controller.online(NODE))
        self.assertEqual(nomad.task(allocation)["State"], "running")


class SandboxTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        build = controller.build("probe", NODE, PROBE)
        cls.console = build.console
        assert build.result == "SUCCESS", build.console
        cls.probe = dict(line[len("probe:"):].split("=", 1)
                         for line in build.console.splitlines() if line.startswith("probe:"))

    def test_pid_1_is_not_the_jvm(self):
        self.assertNotEqual(self.probe["pid1"], "java")
        self.assertEqual(self.probe["parent"], "java")
        self.assertGreater(int(self.probe["parent_pid"]), 1)

    def test_processes_of_the_host_are_invisible(self):
        self.assertLess(int(self.probe["pids"]), 20, self.console)
        self.assertNotIn("nomad", self.probe["comms"])

    def test_user_has_no_rights(self):
        # The job names no user: Nomad gives the task one of its pool's (dynamic_workload_users), without an account.
        self.assertIn(int(self.probe["uid"]), range(80000, 90000))
        self.assertNotEqual(self.probe["gid"], "0")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(self.probe[name], 16), 0, name)
        self.assertEqual(self.probe["NoNewPrivs"], "1")
        self.assertEqual(self.probe["Seccomp"], "2")

    def test_root_file_system_is_read_only(self):
        self.assertIn("ro", self.probe["root"].split(","))
        for path in ("/probe", "/usr/probe", "/etc/probe", "/bin/probe"):
            self.assertEqual(self.probe[f"writable:{path}"], "no", path)

    def test_own_directories_are_writable(self):
        for path in ("/tmp/probe", "/local/probe"):
            self.assertEqual(self.probe[f"writable:{path}"], "yes", path)

    def test_kernel_settings_are_closed(self):
        self.assertEqual(self.probe["proc_sys"], "closed")
        self.assertEqual(self.probe["sysrq"], "closed")

    def test_files_of_the_host_are_invisible(self):
        self.assertEqual(self.probe["shadow"], "0")
        self.assertEqual(self.probe["host_tmp"], "0")

    def test_environment_is_the_tasks_own(self):
        names = self.probe["environment"].split()
        self.assertNotIn("JENKINS_SECRET", names)
        self.assertIn("NOMAD_ALLOC_ID", names)
        for name in ("NOMAD_PLUGIN_MAGIC_COOKIE", "PLUGIN_MIN_PORT", "NOMAD_ADDR"):
            self.assertNotIn(name, names)


class SecretTest(unittest.TestCase):
    """The secret came by a Nomad variable; it must be nowhere but in memory and Nomad's own tmpfs."""

    def assertFreeOfSecret(self, text, where):
        self.assertNotIn(controller.secret, text, where)

    def test_not_in_any_command_line_or_environment(self):
        processes = cluster.our_processes()
        self.assertGreaterEqual(len(cluster.sandboxed_processes()), 2, processes)
        for pid, line in processes.items():
            for name in ("cmdline", "environ"):
                try:
                    text = pathlib.Path(f"/proc/{pid}/{name}").read_text(errors="replace")
                except OSError:
                    continue
                self.assertFreeOfSecret(text, f"{name} of {pid}: {line}")

    def test_not_in_what_nomad_tells(self):
        self.assertFreeOfSecret(nomad.command("alloc", "status", "-json", allocation), "alloc status")
        self.assertFreeOfSecret(json.dumps(nomad.get(f"/v1/allocation/{allocation}")), "allocation")
        self.assertFreeOfSecret(nomad.command("job", "inspect", cluster.EXAMPLE_JOB_ID), "job")

    def test_not_in_logs(self):
        self.assertFreeOfSecret(nomad.log_text(), "the log of Nomad and the driver")
        for stream in ("stdout", "stderr"):
            self.assertFreeOfSecret(nomad.logs(allocation, stream), stream)

    def test_not_in_files(self):
        read = 0
        for top in (nomad.state, nomad.data / "client", nomad.directory / "server-data"):
            for path in top.rglob("*"):
                if path.is_file():
                    read += 1
                    self.assertFreeOfSecret(path.read_bytes().decode("latin-1"), path)
        self.assertGreater(read, 3)

    def test_not_in_the_task_directory_but_for_nomads_tmpfs(self):
        for path in (nomad.data / "alloc").rglob("*"):
            if path.is_file() and "secrets" not in path.parts:
                self.assertFreeOfSecret(path.read_bytes().decode("latin-1"), path)

    def test_not_inherited_by_builds(self):
        # A build runs with the agent's uid and can read /secrets, so this is about accidents: a build that
        # prints its environment or lists processes.
        build = controller.build("search", NODE, "set +x; env; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ "
                                 "2>/dev/null | tr '\\0' '\\n'")
        self.assertEqual(build.result, "SUCCESS", build.console)
        self.assertIn("NOMAD_ALLOC_ID", build.console)
        self.assertFreeOfSecret(build.console, "the console of a build")


class AgentsCommandTest(unittest.TestCase):
    """`nomad-driver-jenkins-agent agents`, as an operator on the node types it."""

    @staticmethod
    def command(*arguments):
        return subprocess.run([DRIVER, "agents", "--state-dir", nomad.state, *arguments], text=True, timeout=60,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def agent(self):
        agents = json.loads(self.command("--json").stdout)["agents"]
        self.assertEqual([each["name"] for each in agents], [NODE])
        return agents[0]

    def test_a_connected_agent_is_shown(self):
        agent = self.agent()
        self.assertEqual(agent["phase"], "connected")
        self.assertEqual(agent["alloc_id"], allocation)
        self.assertEqual(agent["controllers"], [controller.url])
        self.assertEqual(agent["restarts"], 0)
        self.assertGreater(agent["threads"], 5)
        self.assertEqual(agent["memory_limit_bytes"], 1024 << 20)
        self.assertGreater(agent["memory_bytes"], 10 << 20)
        run = self.command()
        print(run.stdout)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertRegex(run.stdout, rf"(?m)^{NODE} +{allocation[:8]} +{controller.url} +connected +\d+\w+ +0 +\d+/2048 ")
        for text in (run.stdout, json.dumps(agent)):
            self.assertNotIn(controller.secret, text)

    def test_the_processes_of_a_build_are_counted(self):
        wait_for("no build's processes", lambda: self.agent()["build_processes"] == 0, 30)
        controller.create_job("counted", NODE, "touch started; until [ -e go ]; do sleep 0.1; done")
        number = controller.trigger("counted")
        wait_for("a build's processes", lambda: self.agent()["build_processes"] > 0, 30)
        workspaces = list((nomad.data / "alloc" / allocation / "agent/local").rglob("started"))
        self.assertEqual(len(workspaces), 1, workspaces)
        (workspaces[0].parent / "go").touch()
        self.assertEqual(controller.wait_build("counted", number).result, "SUCCESS")

    def test_a_dump_lands_in_the_log_and_a_stopped_jvm_is_told(self):
        self.assertNotIn("Full thread dump", nomad.logs(allocation, "stdout"))
        jvm = self.agent()["jvm_pid"]
        os.kill(jvm, signal.SIGSTOP)
        try:
            wait_for("the JVM to stop", lambda: state_of(jvm) == "T", 10)
            stopped = self.command("dump", NODE)
        finally:
            os.kill(jvm, signal.SIGCONT)
        self.assertEqual(stopped.returncode, 1)
        self.assertIn(f"(pid {jvm}) is stopped", stopped.stderr)

        wait_for("the JVM to go on", lambda: state_of(jvm) != "T", 10)
        dumped = self.command("dump", allocation[:8])
        self.assertEqual(dumped.returncode, 0, dumped.stderr)
        self.assertIn(f"nomad alloc logs {allocation} agent", dumped.stdout)
        wait_for("the thread dump", lambda: "Full thread dump" in nomad.logs(allocation, "stdout"), 30)
        self.assertEqual(self.agent()["jvm_pid"], jvm)
        self.assertTrue(controller.online(NODE))


def state_of(pid):
    """"R", "S", "T", ... of a process."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class ZzzStopTest(unittest.TestCase):
    """Last, as its name sorts: ends the job."""

    def test_nothing_is_left_when_the_job_ended(self):
        nomad.stop_job(cluster.EXAMPLE_JOB_ID, purge=False)
        task = nomad.wait_task(allocation, "dead", 30)
        self.assertFalse(task["Failed"], nomad.story(allocation))
        cluster.wait_for("the controller to see the node go", lambda: not controller.online(NODE), 10)
        self.assertEqual(cluster.sandboxed_processes(), {})
        nomad.stop()
        controller.stop()
        # The example's scratch directory is inspected by Scratch.remove.
        self.assertEqual(cluster.leftovers(before), {})
        # Older agents start every program in this directory.
        self.assertEqual([path.name for path in nomad.plugins.iterdir()], [cluster.DRIVER.name])
        cluster.remove_nomad_cgroups()


if __name__ == "__main__":
    cluster.main()
