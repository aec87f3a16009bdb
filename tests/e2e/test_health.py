#!/usr/bin/env python3
"""Agents that hang in each way that a real JVM, controller and build can bring about, and are found from outside."""
import os
import pathlib
import signal
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import cluster
from fixtures import AnsweringServer, module_controller, module_nomad, module_scratch, program_job
from stand_ins import Channels, make_jdk

NODE, ONCE, OWN = "linux-1", "once-1", "own-1"
AWAY_SECONDS = int(os.environ.get("AWAY_SECONDS", 30))  # of the controller: six times the agent's wedge_timeout

# A controller that pings its agents every 2 s and gives one up after 20 s (controller.md 3.5).
PINGS = "-Dhudson.slaves.ConnectionActivityMonitor.enabled=true " \
        "-Dhudson.slaves.ConnectionActivityMonitor.timeToPing=10000 " \
        "-Dhudson.slaves.ConnectionActivityMonitor.frequency=2000"

# Forks until nothing is left, and again whenever something is.
CROWD = """import os, time
while True:
    try:
        if os.fork() == 0: os.execlp("sleep", "sleep", "1303")
    except OSError: time.sleep(0.01)"""

AGENT = """
agent {
  url  = "%s"
  name = "%s"
  mode = "%s"
}
health {
  wedge_timeout = "5s"
}
pids_limit = 100
"""


def setUpModule():
    global nomad, controller, allocation, scratch
    scratch = module_scratch()
    controller = module_controller(scratch, [NODE, ONCE, OWN], options=PINGS)
    controller.launch()
    nomad = module_nomad(scratch)
    controller.wait_ready()
    allocation = run_agent(NODE, "reconnect", "service")


def run_agent(node, mode, kind):
    """A job with an agent for this node, which is online; its allocation."""
    nomad.run_job_text(program_job(node, AGENT % (controller.url, node, mode), kind, memory=512,
                                   lines='env {\n JENKINS_SECRET = "%s"\n }' % controller.secret))
    made = nomad.allocation(node)
    nomad.wait_task(made, "running", 30)
    controller.wait_online(node)
    return made


def jvm_pid(of=None):
    """The JVM of an allocation."""
    found = [pid for pid in cluster.sandboxed_processes()
             if os.path.basename(cluster.executable(pid)) == "java" and (of or allocation) in cgroups(pid)]
    return found[0] if len(found) == 1 else None


def ask_until(done):
    """Pages that each need a thread of the agent, one after another."""
    while not done.is_set():
        try:
            cluster.exchange("GET", f"{controller.url}computer/{NODE}/systemInfo", timeout=3)
        except (OSError, cluster.HttpError):
            pass
        done.wait(0.2)


def cgroups(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def sandboxed(part):
    return sorted(pid for pid, line in cluster.sandboxed_processes().items() if part in line)


class HealthTest(unittest.TestCase):
    def story(self):
        return nomad.story(allocation) + nomad.logs(allocation, "stderr")[-4000:] + nomad.driver_log()[-4000:]

    def wait_restarted(self, before, seconds=60):
        try:
            cluster.wait_for("another JVM", lambda: jvm_pid() not in (None, before), seconds)
            controller.wait_online(NODE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None
        self.assertEqual(nomad.task(allocation)["State"], "running", self.story())
        self.assertEqual(nomad.task(allocation)["Restarts"], 0, self.story())

    def durable_step(self, seconds):
        """Starts a build with a durable step that goes on beside it; its pid."""
        job = f"durable-{seconds}"
        # Until it has executed its program it has the build's environment, and the build's end is its own.
        controller.create_job(job, NODE, f"BUILD_ID=x JENKINS_SERVER_COOKIE=durable-1 nohup sleep {seconds} "
                              ">/dev/null 2>&1 & while grep -q sh /proc/$!/comm; do sleep 0.1; done")
        controller.wait_build(job, controller.trigger(job))
        return cluster.wait_for("the durable step", lambda: sandboxed(f"sleep {seconds}"), 10)

    def test_1_stopped_idle_jvm_is_restarted(self):
        step = self.durable_step(1201)
        jvm = jvm_pid()
        os.kill(jvm, signal.SIGSTOP)
        stopped = time.monotonic()
        self.wait_restarted(jvm)
        print(f"stopped -> another JVM online: {time.monotonic() - stopped:.1f} s")
        self.assertEqual(sandboxed("sleep 1201"), step, "the durable step")
        self.assertIn("Full thread dump", nomad.logs(allocation, "stdout"))
        nomad.wait_event(allocation, r"hangs: its process is stopped \(state T\), for \d+ s; restarting it in place", 20)

    def test_2_controller_is_killed_and_comes_back(self):
        """Also to a one-shot agent, whose task ends with the next end of its channel."""
        once = run_agent(ONCE, "one_shot", "batch")
        before = jvm_pid(), jvm_pid(once)
        controller.end(signal.SIGKILL)
        # Not a wait for something: this is the time for which the controller is away.
        time.sleep(AWAY_SECONDS)
        self.assertEqual((jvm_pid(), jvm_pid(once)), before, self.story())
        controller.start()
        controller.wait_online(NODE)
        controller.wait_online(ONCE)
        self.assertEqual((jvm_pid(), jvm_pid(once)), before, self.story())
        controller.post(f"computer/{ONCE}/doDisconnect")
        task = nomad.wait_task(once, "dead", 60)
        self.assertFalse(task["Failed"], nomad.story(once) + nomad.driver_log()[-4000:])
        self.assertEqual(nomad.wait_event(once, "^Terminated", 5)["Details"]["exit_code"], "0", nomad.story(once))

    def test_3_threads_used_up_by_a_build(self):
        """The JVM's reader cannot start the threads that the controller's requests need, and dies."""
        step = self.durable_step(1203)
        jvm = jvm_pid()
        controller.create_job("crowd", NODE, f"exec python3 -c '{CROWD}'")
        number = controller.trigger("crowd")
        cluster.wait_for("a full pids limit", lambda: len(sandboxed("sleep 1303")) > 40, 20)
        with ThreadPoolExecutor(8) as pool:
            asking = threading.Event()
            for _ in range(8):
                pool.submit(ask_until, asking)
            try:
                self.wait_restarted(jvm)
            finally:
                asking.set()
        self.assertEqual(sandboxed("sleep 1203"), step, "the durable step")
        self.assertEqual(sandboxed("sleep 1303"), [], "what the lost build left")
        self.assertEqual(controller.wait_build("crowd", number).result, "FAILURE")
        build = controller.build("after-the-crowd", NODE, "echo fine")
        self.assertEqual(build.result, "SUCCESS", build.console)

    def test_4_stopped_amid_a_build_while_the_controller_pings(self):
        step = self.durable_step(1204)
        controller.create_job("amid", NODE, "echo begun; sleep 1304")
        number = controller.trigger("amid")
        controller.wait_console("amid", number, "begun")
        jvm = jvm_pid()
        os.kill(jvm, signal.SIGSTOP)
        self.wait_restarted(jvm)
        self.assertEqual(controller.wait_build("amid", number).result, "FAILURE")
        self.assertEqual(sandboxed("sleep 1304"), [], "what the lost build left")
        self.assertEqual(sandboxed("sleep 1204"), step, "the durable step")
        build = controller.build("after-the-stop", NODE, "echo fine")
        self.assertEqual(build.result, "SUCCESS", build.console)

    def test_5_connection_that_only_the_agent_believes_in(self):
        """A stand-in: a real agent notices the end of its connection (CLOSE-WAIT)."""
        channels = Channels(self)
        jdk = make_jdk(scratch.path / "jdk", channels.port)
        url = AnsweringServer(self, 200, agent_port=channels.port).url
        config = AGENT % (url, "stand-in", "reconnect") + f'java_home = "{jdk}"'
        nomad.run_job_text(program_job("stand-in", config, "service", 'env {\n JENKINS_SECRET = "5ec2e7"\n }'))
        self.addCleanup(nomad.stop_job, "stand-in")
        made = nomad.allocation("stand-in")
        cluster.wait_for("its connection", lambda: channels.taken, 30)
        nomad.wait_event(made, "agent connected", 30)
        channels.taken[0].close()
        nomad.wait_event(made, "hangs: the controller has closed the connection and it does not notice.*; "
                               "restarting it in place", 60)
        cluster.wait_for("the connection of another JVM", lambda: len(channels.taken) > 1, 30)
        self.assertIn("Full thread dump of a stand-in", nomad.logs(made, "stdout"))
        self.assertEqual(nomad.task(made)["Restarts"], 0, nomad.story(made))

    def test_6_own_launcher_is_restarted_in_place(self):
        """The job names the jar and its arguments itself, as under Nomad's java driver."""
        config = f'jar_path = "local/agent.jar"\n java_version = "17"\n' \
                 f'args = ["-jnlpUrl", "{controller.url}computer/{OWN}/slave-agent.jnlp"]'
        fetch = 'artifact {\n source = "%sjnlpJars/remoting.jar"\n destination = "local/agent.jar"\n mode = "file"\n }'
        nomad.run_job_text(program_job(OWN, config, "service", fetch % controller.url, memory=512))
        self.addCleanup(nomad.stop_job, OWN)
        made = nomad.allocation(OWN)
        nomad.wait_event(made, "agent connected", 60)
        controller.wait_online(OWN)
        jvm = cluster.wait_for("its JVM", lambda: jvm_pid(made), 20)
        os.kill(jvm, signal.SIGKILL)
        nomad.wait_event(made, "killed by signal 9.*restarting it in place", 30)
        controller.wait_online(OWN)
        self.assertNotEqual(jvm_pid(made), jvm)
        self.assertEqual(nomad.task(made)["Restarts"], 0, nomad.story(made))

    def test_7_events_are_few(self):
        events = [event for event in nomad.task(allocation)["Events"] if "restarting it in place" in
                  (event.get("DisplayMessage") or "")]
        self.assertEqual(len(events), 1, self.story())


if __name__ == "__main__":
    cluster.main()
