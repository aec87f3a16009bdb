#!/usr/bin/env python3
"""A cluster of one server and three clients, each with its own driver: spread, drain, loss of a machine, and its return.

Three permanent agents of examples/pool.nomad.hcl; two fit on a machine. `explain` is asked at each step.
"""
import json
import re
import subprocess
import unittest

import cluster
from cluster import DRIVER, NomadAgent, wait_for
from fixtures import module_controller, module_scratch, program_job, shell
from hosts import SERVERS, Host, make_network
from machine import ROOT
from nomad_agent import NomadServer
from traces import command_line, mount_points, nomad_cgroups, remove_nomad_cgroups

POOL = ROOT / "examples/pool.nomad.hcl"
ON_IMAGE = ROOT / "examples/image.nomad.hcl"
MAKE_IMAGE = ROOT / "examples/agent-image/local-image"
JOB = "jenkins-pool"
NAMES = ["linux-0", "linux-1", "linux-2"]
CLIENT = """
  memory_total_mb = 2400
  reserved {
    memory = 100
  }
"""


def setUpModule():
    global controller, clients, image
    scratch = module_scratch()
    image = f"oci:{scratch.path}/image"
    subprocess.run([MAKE_IMAGE, scratch.path / "image"], check=True)
    make_network()
    controller = module_controller(scratch, NAMES, listen="0.0.0.0")
    controller.url = f"http://{SERVERS}:{controller.port}/"
    controller.launch()
    directory = scratch.path / "server"
    directory.mkdir()
    # A client that is silent for 2 to 4 s is down.
    server = NomadServer(directory, SERVERS, 'min_heartbeat_ttl = "1s"\nheartbeat_grace = "2s"')
    unittest.addModuleCleanup(server.end)
    images = f'images {{\n pre_pull = ["{image}"]\n }}'
    clients = [NomadAgent(scratch, dev=False, client=CLIENT, join=server, host=Host(number), name=f"node-{number}",
                          options=images if number == 3 else "") for number in (1, 2, 3)]
    server.start(clients[0].own_environment())
    unittest.addModuleCleanup(remove_nomad_cgroups)
    unittest.addModuleCleanup(stop_clients)
    for client in clients:
        client.start()
    controller.wait_ready()


def stop_clients():
    nomad = clients[0]
    nomad.stop_job(JOB)
    nomad.request("PUT", "/v1/system/gc")
    for client in clients:
        if client.alive():
            wait_for(f"{client.host.name} to remove its allocations", lambda: not client.allocation_directories(), 60)
            client.end()


def explain():
    """Exit code and the group's part of the answer."""
    run = subprocess.run([str(DRIVER), "explain", JOB, "--json"], env=clients[0].environment(), text=True,
                         stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return run.returncode, json.loads(run.stdout)["groups"][0]


def placement():
    """{agent: its client} of those that run."""
    found = {}
    for allocation in clients[0].get(f"/v1/job/{JOB}/allocations"):
        if allocation["ClientStatus"] == "running" and allocation["DesiredStatus"] == "run":
            found["linux-" + allocation["Name"].partition("[")[2][:-1]] = next(
                client for client in clients if client.node == allocation["NodeID"])
    return found


class ClusterTest(unittest.TestCase):
    """One story; the tests are its steps, in the order of their names."""

    def test_0_a_node_that_has_the_image_is_preferred(self):
        having = clients[2]
        wait_for("the image", lambda: having.kept_image(image), 90)
        self.assertEqual([client.kept_image(image) for client in clients[:2]], ["", ""])
        # What is placed for the fullest node would come to this one.
        constraint = f'constraint {{\n attribute = "${{node.unique.id}}"\n value = "{clients[0].node}"\n }}'
        clients[0].run_job_text(program_job("filler", shell("sleep 600"), lines=constraint, memory=512))
        self.addCleanup(clients[0].stop_job, "filler")
        clients[0].wait_task(clients[0].allocation("filler"), "running", 30)
        controller.create_node("imaged")
        clients[0].put_variable("nomad/jobs/jenkins-image", {"secret": controller.secret})
        clients[0].run_job(ON_IMAGE, url=controller.url, name="imaged", image=image)
        self.addCleanup(clients[0].stop_job, "jenkins-image")
        allocation = clients[0].allocation("jenkins-image")
        self.assertEqual(clients[0].get(f"/v1/allocation/{allocation}")["NodeID"], having.node)
        controller.wait_online("imaged")
        having.wait_event(allocation, re.escape(f"image {image}: from cache"), 30)

    def assertAllRun(self, on):
        """All agents run on these clients and are online; nothing waits."""
        def there():
            now = placement()
            return now if sorted(now) == NAMES and set(now.values()) <= set(on) else None
        now = wait_for(f"the agents to run on {[c.host.name for c in on]}", there, 60)
        for name in NAMES:
            controller.wait_online(name)
        self.assertEqual(explain()[0], 0)
        return now

    def assertBuilds(self, name, job):
        build = controller.build(job, name, "echo built on $NODE_NAME")
        self.assertEqual((build.result, build.node), ("SUCCESS", name), build.console)

    def test_1_agents_are_spread_over_the_machines(self):
        clients[0].put_variable(f"nomad/jobs/{JOB}", {name: controller.secret for name in NAMES})
        clients[0].run_job(POOL, url=controller.url, count=3)
        now = self.assertAllRun(clients)
        self.assertEqual(set(now.values()), set(clients))
        for name in NAMES:
            self.assertBuilds(name, f"spread-{name}")

    def test_2_a_drained_machine_hands_its_agent_over(self):
        drained = clients[0]
        moved = next(name for name, client in placement().items() if client is drained)
        clients[0].command("node", "drain", "-enable", "-yes", "-detach", "-deadline", "1h", drained.node)
        self.assertAllRun(clients[1:])
        self.assertBuilds(moved, "drained")

    def test_3_a_lost_machine_is_told_and_builds_wait(self):
        lost, left = clients[1:] if list(placement().values()).count(clients[1]) == 1 else clients[:0:-1]
        type(self).lost = lost
        type(self).waiting = next(name for name, client in placement().items() if client is lost)
        controller.create_job("running", self.waiting, "echo begun; sleep 600")
        number = controller.trigger("running")
        controller.wait_console("running", number, "begun")
        lost.host.power_off()
        lost.process.wait()
        self.assertNotEqual(controller.wait_build("running", number).result, "SUCCESS")

        def blocked():
            code, group = explain()
            return code == 2 and {node["name"]: node for node in group["nodes"]}
        nodes = wait_for("an agent to wait", blocked, 60)
        self.assertEqual(sorted(nodes), sorted(client.host.name for client in clients))
        self.assertIn("down", str(nodes[lost.host.name]["reasons"]))
        self.assertEqual(nodes[clients[0].host.name]["reasons"], ["not eligible for scheduling"])  # its drain is over
        memory = next(f for f in nodes[left.host.name]["figures"] if f["resource"] == "memory")
        self.assertEqual((memory["asked"], memory["short_by"]), (1024, 1024 - (2400 - 100 - 2 * 1024)))
        controller.create_job("queued", self.waiting, "echo built on $NODE_NAME")
        type(self).queued = controller.trigger("queued")

    def test_4_room_elsewhere_takes_agent_and_build(self):
        clients[0].command("node", "drain", "-disable", "-yes", clients[0].node)
        now = self.assertAllRun([client for client in clients if client is not self.lost])
        self.assertIs(now[self.waiting], clients[0])
        build = controller.wait_build("queued", self.queued)
        self.assertEqual((build.result, build.node), ("SUCCESS", self.waiting), build.console)

    def test_5_the_machine_comes_back_clean(self):
        self.lost.start()
        wait_for("the driver to remove what was left", lambda: not list((self.lost.state / "tasks").iterdir()), 30)
        self.assertAllRun(clients)
        clients[0].command("job", "restart", "-yes", "-reschedule", JOB)  # the machine takes agents again
        now = self.assertAllRun(clients)
        self.assertIn(self.lost, now.values())

    def test_6_nothing_is_left(self):
        allocations = [each["ID"] for each in clients[0].get(f"/v1/job/{JOB}/allocations")]
        stop_clients()
        self.assertEqual([cgroup for cgroup in nomad_cgroups() if any(each in cgroup for each in allocations)], [])
        for client in clients:
            self.assertEqual({pid: command_line(pid) for pid in client.host.pids()}, {})
            self.assertEqual([mount for mount in mount_points() if str(client.directory) in mount], [])


if __name__ == "__main__":
    cluster.main(hide=("/run",))
