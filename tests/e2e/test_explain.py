#!/usr/bin/env python3
"""`explain` beside a real Nomad: it tells what Nomad counts, and the remedy that it states places the job."""
import json
import os
import subprocess
import unittest

import cluster
from cluster import DRIVER, wait_for
from fixtures import module_nomad, module_scratch, mount, program_job
from nomad_agent import ENDED, NomadAgent

# What Nomad takes the node for; the tests' jobs sleep and need none of it.
NODE = """
  cpu_total_compute = 4000
  memory_total_mb   = 4096
  disk_total_mb     = 20000
  node_max_allocs   = 5
  reserved {
    cpu    = 500
    memory = 96
    disk   = 1000
  }
  meta {
    rack = "r1"
  }
"""
GROUP = "jenkins-agent"


def setUpModule():
    global nomad
    nomad = module_nomad(module_scratch(), client=NODE, with_driver=False)


def job(name, count=1, cpu=100, memory=64, cores=None, disk=300, driver="raw_exec", datacenters=("*",),
        constraints=(), group_constraints=(), port=None):
    """A batch job of one sleeping task, in the API's form."""
    resources = {"MemoryMB": memory, **({"Cores": cores} if cores else {"CPU": cpu})}
    networks = [{"ReservedPorts": [{"Label": "jmx", "Value": port}]}] if port else None
    task = {"Name": "agent", "Driver": driver, "Resources": resources,
            "Config": {"command": "/bin/sleep", "args": ["3600"]}}
    group = {"Name": GROUP, "Count": count, "Tasks": [task], "EphemeralDisk": {"SizeMB": disk}, "Networks": networks,
             "RestartPolicy": {"Attempts": 0, "Mode": "fail"}, "Constraints": list(group_constraints)}
    return {"ID": name, "Name": name, "Type": "batch", "Datacenters": list(datacenters),
            "Constraints": list(constraints), "TaskGroups": [group]}


def constraint(left, operation, right=""):
    return {"LTarget": left, "Operand": operation, "RTarget": right}


def explain(*arguments, ok=(0, 2)):
    """Exit code and output of the command, as an operator uses it."""
    run = subprocess.run([str(DRIVER), "explain", *arguments], env=nomad.environment(), text=True, capture_output=True,
                         stdin=subprocess.DEVNULL, timeout=60, check=False)
    if run.returncode not in ok:
        raise AssertionError(f"explain {arguments}: exit {run.returncode}\n{run.stdout}{run.stderr}")
    return run.returncode, run.stdout


def apply(changed, change):
    """The job with a remedy's change, as its author would make it."""
    group = changed["TaskGroups"][0]
    for resources in change.get("tasks", {}).values():
        names = {"cpu": "CPU", "memory": "MemoryMB", "cores": "Cores"}
        group["Tasks"][0]["Resources"].update({names[key]: value for key, value in resources.items()})
    if "disk" in change:
        group["EphemeralDisk"]["SizeMB"] = change["disk"]
    if "count" in change:
        group["Count"] = change["count"]
    if "add_datacenter" in change:
        changed["Datacenters"].append(change["add_datacenter"])
    if "drop_constraint" in change:
        for place in (changed, group):
            place["Constraints"] = [c for c in place["Constraints"]
                                    if change["drop_constraint"] not in
                                    (" ".join((c["LTarget"], c["Operand"], c["RTarget"])), c["Operand"])]
    if "dynamic_port" in change:
        network = group["Networks"][0]
        network["DynamicPorts"] = [{"Label": change["dynamic_port"]}]
        network["ReservedPorts"] = []


class ExplainTest(unittest.TestCase):
    def run_job(self, wanted):
        nomad.request("PUT", "/v1/jobs", {"Job": wanted})
        self.addCleanup(nomad.stop_job, wanted["ID"])

    @staticmethod
    def holding(name):
        return [a for a in nomad.get("/v1/allocations") if a["JobID"] == name
                and a["ClientStatus"] not in ENDED]

    def run_placed(self, wanted):
        self.run_job(wanted)
        self.wait_placed(wanted)

    def wait_placed(self, wanted):
        count = wanted["TaskGroups"][0]["Count"]
        wait_for(f"{wanted['ID']} to run", lambda: len(self.holding(wanted["ID"])) >= count, 30)
        self.assertEqual(explain(wanted["ID"])[0], 0)

    def explained(self, wanted):
        """Runs the job, which has to wait; the group's part of the JSON."""
        self.run_job(wanted)
        wait_for("a blocked evaluation", lambda: any(e["Status"] == "blocked" for e in
                                                     nomad.get(f"/v1/job/{wanted['ID']}/evaluations")), 30)
        code, text = explain(wanted["ID"], "--json")
        self.assertEqual(code, 2, text)
        self.assertEqual(json.loads(text)["warnings"], [])  # there are no ACLs: everything is seen
        group = json.loads(text)["groups"][0]
        # What is counted here is what Nomad's scheduler counted a moment ago.
        for key in ("nodes_evaluated", "constraint_filtered", "dimension_exhausted"):
            self.assertEqual(group["nomad_now"][key], group["nomad_then"][key], text)
        return group

    def place_by_change(self, wanted, group, key):
        """Applies the first remedy that changes `key`, which Nomad's plan has to agree with."""
        remedies = [r for r in group["remedies"] if key in r.get("change", {})]
        self.assertTrue(remedies, group["remedies"])
        self.assertEqual(remedies[0]["check"], "places", remedies[0])
        apply(wanted, remedies[0]["change"])
        nomad.request("PUT", "/v1/jobs", {"Job": wanted})
        self.wait_placed(wanted)
        return remedies[0]

    def short_by(self, group, resource):
        figures = [f for f in group["nodes"][0]["figures"] if f["resource"] == resource]
        return figures[0]["short_by"]

    def test_memory(self):
        self.run_placed(job("hold", memory=3000))
        wanted = job("ask", memory=1500)
        group = self.explained(wanted)
        self.assertEqual(group["verdict"], "no_room")
        self.assertEqual(self.short_by(group, "memory"), 500)
        self.assertEqual([(h["job"], h["amount"]) for h in group["holders"]], [("hold", 3000)])
        remedy = self.place_by_change(wanted, group, "tasks")
        self.assertEqual(remedy["change"]["tasks"]["agent"]["memory"], 1000)

    def test_stopping_who_is_named_makes_room(self):
        self.run_placed(job("hold-large", memory=2500))
        self.run_placed(job("hold-small", memory=900))
        wanted = job("ask", memory=1400)
        group = self.explained(wanted)
        stop = [r["text"] for r in group["remedies"] if "make room" in r["text"]]
        self.assertIn("of job hold-small (900 MB)", stop[0])
        nomad.stop_job("hold-small")
        self.wait_placed(wanted)

    def test_cpu(self):
        self.run_placed(job("hold", cpu=3000))
        wanted = job("ask", cpu=1000)
        group = self.explained(wanted)
        self.assertEqual(self.short_by(group, "cpu"), 500)
        self.place_by_change(wanted, group, "tasks")

    def test_cores_that_no_node_has(self):
        wanted = job("ask", cores=(os.cpu_count() or 1) + 1)
        group = self.explained(wanted)
        self.assertEqual(group["verdict"], "never_fits")
        self.assertEqual(self.short_by(group, "cores"), 1)
        self.assertIn("with at least", group["remedies"][-1]["text"])
        self.assertNotIn("make room", str(group["remedies"]))
        self.place_by_change(wanted, group, "tasks")

    def test_cores_that_another_job_has(self):
        have = len([c for c in self.node()["NodeResources"]["Processors"]["Topology"]["Cores"] if not c["Disable"]])
        self.run_placed(job("hold", cores=1))
        wanted = job("ask", cores=have)
        group = self.explained(wanted)
        self.assertEqual(self.short_by(group, "cores"), 1)
        self.assertIn(("hold", 1), [(h["job"], h["amount"]) for h in group["holders"]])

    def test_disk(self):
        wanted = job("ask", disk=30000)
        group = self.explained(wanted)
        self.assertEqual(group["verdict"], "never_fits")
        self.assertEqual(self.short_by(group, "disk"), 11000)
        self.place_by_change(wanted, group, "disk")

    def test_static_port(self):
        # One on each address of the loopback device.
        addresses = sum(len(n["Addresses"] or []) for n in self.node()["NodeResources"]["NodeNetworks"])
        self.run_placed(job("hold", count=addresses, port=9010))
        wanted = job("ask", port=9010)
        group = self.explained(wanted)
        self.assertEqual(self.short_by(group, "static_port"), 1)
        self.assertEqual(group["holders"][0]["job"], "hold")
        self.place_by_change(wanted, group, "dynamic_port")

    def test_driver(self):
        group = self.explained(job("ask", driver="docker"))
        self.assertEqual(group["verdict"], "no_candidate")
        self.assertIn("driver docker is not detected", group["nodes"][0]["reasons"][0])

    def test_constraint(self):
        wanted = job("ask", group_constraints=[constraint("${meta.rack}", "=", "r2")])
        group = self.explained(wanted)
        self.assertEqual(group["nodes"][0]["reasons"], ["constraint ${meta.rack} = r2: here it is 'r1'"])
        self.place_by_change(wanted, group, "drop_constraint")

    def test_datacenter(self):
        wanted = job("ask", datacenters=("dc9",))
        group = self.explained(wanted)
        self.assertEqual(group["nodes"][0]["standing"], "left_out")
        self.place_by_change(wanted, group, "add_datacenter")

    def test_distinct_hosts(self):
        wanted = job("ask", count=2, constraints=[constraint("", "distinct_hosts", "true")])
        group = self.explained(wanted)
        self.assertEqual(group["unplaced"], 1)
        self.place_by_change(wanted, group, "count")

    @staticmethod
    def node():
        return nomad.get(f"/v1/node/{nomad.get('/v1/nodes')[0]['ID']}")

    def run_stated_command(self, group):
        text = next(r["text"] for r in group["remedies"] if r["text"].startswith("nomad node"))
        *command, node = text.split(":")[0].split()[1:]
        # The question whether one is sure needs a terminal.
        nomad.command(*command, *(["-yes"] if "drain" in command else []), node)

    def test_ineligible_node(self):
        nomad.command("node", "eligibility", "-disable", self.node()["ID"])
        self.addCleanup(lambda: nomad.command("node", "eligibility", "-enable", self.node()["ID"]))
        wanted = job("ask")
        group = self.explained(wanted)
        self.assertEqual(group["nodes"][0]["reasons"], ["not eligible for scheduling"])
        self.run_stated_command(group)
        self.wait_placed(wanted)

    def test_drained_node(self):
        # What is drained waits for this one, so the drain goes on.
        self.run_placed(job("hold"))
        nomad.command("node", "drain", "-enable", "-detach", "-yes", "-deadline", "1h", self.node()["ID"])
        self.addCleanup(lambda: nomad.command("node", "drain", "-disable", "-yes", self.node()["ID"]))
        wanted = job("ask")
        group = self.explained(wanted)
        self.assertEqual(group["nodes"][0]["reasons"], ["draining"])
        self.run_stated_command(group)
        self.wait_placed(wanted)

    def test_most_allocations(self):
        self.run_placed(job("hold", count=5))
        wanted = job("ask")
        group = self.explained(wanted)
        self.assertEqual(self.short_by(group, "allocations"), 1)
        self.assertIn("node_max_allocs", str(group["remedies"]))
        nomad.stop_job("hold")
        self.wait_placed(wanted)

    def test_all_that_waits(self):
        self.run_placed(job("hold", memory=3900))
        for name in ("ci-1", "ci-2", "other"):
            self.explained(job(name, memory=1500))
        code, text = explain("--all-blocked", "--prefix", "ci-", "--json")
        self.assertEqual(code, 2)
        demand = json.loads(text)
        self.assertEqual([w["job"] for w in demand["waiting"]], ["ci-1", "ci-2"])
        self.assertEqual((demand["memory_mb"], demand["lacking"]), (3000, {"memory": 2}))
        self.assertEqual(demand["nodes_that_would_do"]["count"], 1)
        self.assertIn("3 allocations wait", explain("--all-blocked")[1])

    def test_watch_ends_when_nothing_waits(self):
        self.run_placed(job("hold", memory=3900))
        self.explained(job("ask", memory=1500))
        watch = subprocess.Popen([str(DRIVER), "explain", "ask", "--watch"], env=nomad.environment(), text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(watch.stdout.close)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.kill)
        self.assertIn("waits", watch.stdout.readline())
        nomad.stop_job("hold")
        self.assertEqual(watch.wait(60), 0)
        self.assertIn("nothing waits", watch.stdout.read())

    def test_what_failed_for_good_is_told_and_tried_again(self):
        failing = job("ask")
        group = failing["TaskGroups"][0]
        group["Tasks"][0]["Config"] = {"command": "/bin/false"}
        second = 1_000_000_000
        for attempts in 0, 1:
            group["ReschedulePolicy"] = {"Attempts": attempts, "Interval": 86400 * second, "Delay": 5 * second,
                                         "DelayFunction": "constant", "Unlimited": False}
            self.run_job(failing)
            wait_for("the last try's end", lambda tries=attempts + 1: [
                a["ClientStatus"] for a in nomad.get("/v1/job/ask/allocations")] == ["failed"] * tries, 60)
            text = explain("ask", ok=(0,))[1]
            self.assertIn("nothing waits to be placed", text)
            self.assertIn("1 allocation failed, and Nomad tries no more", text)
            if attempts == 0:
                self.assertIn("then stop the job and run it again", text)
                nomad.stop_job("ask")
        self.assertIn("then nomad job eval -force-reschedule ask.", text)
        nomad.command("job", "eval", "-force-reschedule", "ask")
        wait_for("another try", lambda: len(nomad.get("/v1/job/ask/allocations")) == 3, 30)

    def test_what_is_not_there_is_an_error(self):
        self.assertEqual(explain("no-such-job", ok=(1,))[0], 1)
        self.assertEqual(explain(ok=(1,))[0], 1)


class UnhealthyDriverTest(unittest.TestCase):
    def test_is_told_with_its_text_and_its_remedy_places_the_job(self):
        scratch = module_scratch()
        state = scratch.path / "small"
        state.mkdir()
        mount("-t", "tmpfs", "-o", "size=900k", "own", str(state))
        self.addCleanup(subprocess.run, ["umount", str(state)], check=True)
        agent = NomadAgent(scratch, dev=False, state=state)
        self.addCleanup(agent.stop)
        driver, agent.driver = agent.driver, ""  # not waited for: it cannot be healthy
        agent.start()
        agent.run_job_text(program_job("ask", 'command = "/bin/sleep"\n args = ["3600"]', "service"))

        def explained(wanted="unhealthy"):  # before: not installed
            run = subprocess.run([str(DRIVER), "explain", "ask"], env=agent.environment(), text=True,
                                 capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
            return run if wanted in run.stdout else None
        self.assertIn(f"driver jenkins-agent is unhealthy: state_dir {state} is on a full disk",
                      wait_for("a job that waits", explained, 30).stdout)
        self.assertIn("healthy, then nomad job eval ask, ", explained().stdout)
        mount("-o", "remount,size=2g", str(state))
        agent.end()
        agent.driver = driver
        agent.start()
        # Nomad itself looks again when a node's attributes change; a driver's health is none of them.
        again = wait_for("the driver's health to be seen", lambda: explained("it fits on"), 30)
        self.assertIn("nomad job eval ask: Nomad looks again at once", again.stdout)
        self.assertIn("[checked: Nomad's plan places it]", again.stdout)
        agent.command("job", "eval", "ask")
        agent.wait_task(agent.allocation("ask"), "running", 60)


if __name__ == "__main__":
    cluster.main()
