"""A real Nomad agent with the driver in its plugin_dir."""
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.parse

from machine import DRIVER, DRIVER_FILE, HttpError, Server, exchange, free_port, http, nomad_binary, wait_for
from traces import children, executable

EXAMPLE_TASK = "agent"  # the task's name in every job of these tests
ENDED = ("complete", "failed", "lost")  # an allocation's ClientStatus


COMMON = """
data_dir             = "{data}"
bind_addr            = "{bind}"
disable_update_check = true
log_level            = "TRACE"
advertise {{
  http = "{bind}"
  rpc  = "{bind}"
  serf = "{bind}"
}}
ports {{
  http = {http}
  rpc  = {rpc}
  serf = {serf}
}}
"""


def free_ports():
    return {name: free_port() for name in ("http", "rpc", "serf")}


class NomadServer(Server):
    """A Nomad server with state on disk. bind: its address; more: lines of its block."""

    SERVER = """
server {{
  enabled          = true
  bootstrap_expect = 1
  {more}
}}
"""

    def __init__(self, directory, bind="127.0.0.1", more=""):
        super().__init__("nomad-server", directory)
        ports = free_ports()
        self.address, self.rpc = f"http://{bind}:{ports['http']}", f"{bind}:{ports['rpc']}"
        self.config = directory / "server.hcl"
        self.config.write_text(COMMON.format(data=directory / "server-data", bind=bind, **ports) +
                               self.SERVER.format(more=more))

    def start(self, environment):
        self.spawn([nomad_binary(), "agent", "-config", self.config], environment)

        def keyring():
            self.must_live()
            try:
                return json.loads(http("GET", f"{self.address}/v1/operator/keyring/keys"))
            except (OSError, HttpError):
                return None
        wait_for("Nomad's keyring", keyring, 60)


class NomadAgent(Server):
    """A Nomad client with the driver in its plugin_dir, and the server for it.

    dev: both in one process, state in memory, ready in 2-3 s, its end kills all tasks. Otherwise two
    processes with state on disk, and tasks survive the client; the server stands before the client comes,
    for a lone agent refuses its own node in half of its starts and then waits for 20-30 s.
    options: more lines of the driver's configuration; client: of the block `client`.
    acl: with ACLs; requests carry the bootstrap token. tls: a directory with ca.pem, cert.pem and key.pem; the
    API is https. Both with `dev` only.
    join: a NomadServer that runs already; the client is one of several, its node is called `name`.
    host: the Host that it runs on. plugins, state: a plugin_dir that has the driver already, and its state_dir.
    """

    CLIENT = """
plugin_dir = "{plugins}"
name       = "{name}"
client {{
  enabled           = true
  network_interface = "lo"
  servers           = ["{rpc}"]
  options = {{
    # env_*: the cloud metadata probes ask link-local addresses and can keep the agent from starting.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,signal"
  }}
  {more}
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
"""
    ACL = """
acl {
  enabled = true
}
"""
    TLS = """
tls {{
  http      = true
  ca_file   = "{0}/ca.pem"
  cert_file = "{0}/cert.pem"
  key_file  = "{0}/key.pem"
}}
"""
    DRIVER = """
plugin "nomad-driver-jenkins-agent" {{
  config {{
    state_dir = "{state}"
    {options}
  }}
}}
"""

    def __init__(self, scratch, dev=True, options="", client="", with_driver=True, acl=False, tls=None, join=None,
                 name="nomad", host=None, plugins=None, state=None):
        directory = scratch.path / name
        directory.mkdir(mode=0o755)
        super().__init__("nomad", directory)
        self.dev, self.acl, self.tls, self.host = dev, acl, tls, host
        self.binary = nomad_binary()
        self.data, self.plugins = directory / "data", plugins or directory / "plugins"
        self.state, self.tmp = state or directory / "driver-state", directory / "tmp"
        for path in (self.data, directory / "plugins", self.tmp):
            path.mkdir()
        self.driver = ""
        if with_driver:
            if not plugins:
                install(DRIVER, self.plugins / DRIVER_FILE)
            self.driver = self.DRIVER.format(state=self.state, options=options)
        self.token = ""
        bind = host.address if host else "127.0.0.1"
        ports = free_ports()
        self.own_address = f"{'https' if tls else 'http'}://{bind}:{ports['http']}"
        self.server = None if dev or join else NomadServer(directory)
        joined = join or self.server
        self.address = joined.address if joined else self.own_address  # the API
        (directory / "agent.hcl").write_text(
            COMMON.format(data=self.data, bind=bind, **ports) + (self.ACL if acl else "") +
            (self.TLS.format(tls) if tls else "") + self.driver +
            self.CLIENT.format(plugins=self.plugins, name=name, more=client,
                               rpc=joined.rpc if joined else f"{bind}:{ports['rpc']}"))

    def own_environment(self):
        """Of the agent itself. NOMAD_ADDR in it would be where its templates look for variables."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": str(self.tmp)}

    def environment(self):
        """Of an operator's commands."""
        return {**self.own_environment(), "NOMAD_ADDR": self.address,
                **({"NOMAD_TOKEN": self.token} if self.token else {}),
                **({"NOMAD_CACERT": str(self.tls / "ca.pem")} if self.tls else {})}

    # life

    def start(self):
        if self.server and not self.server.alive():
            self.server.start(self.own_environment())
        self.spawn([*(self.host.enter if self.host else ()), self.binary, "agent", *(["-dev"] if self.dev else []),
                    "-config", self.directory / "agent.hcl"], self.own_environment())
        if self.acl and not self.token:
            self.token = wait_for("Nomad's ACLs", self._bootstrap, 60)["SecretID"]
        wait_for("a ready Nomad node", self._ready, 60)
        return self

    def _bootstrap(self):
        self.must_live()
        try:
            return json.loads(self.request("PUT", "/v1/acl/bootstrap"))
        except (OSError, HttpError):
            return None

    def _ready(self):
        # After a restart the server still has the node of before; the client tells when it is back.
        (self.server or self).must_live()
        self.must_live()
        try:
            own = json.loads(self._exchange("GET", f"{self.own_address}/v1/agent/self")[1])
            self.node = own["stats"]["client"]["node_id"]
            node = self.get(f"/v1/node/{self.node}")
        except (OSError, HttpError, KeyError):
            return None
        if node["Status"] != "ready" or own["stats"]["client"]["heartbeat_ttl"] == "0s":
            return None
        wanted = "jenkins-agent" if self.driver else "raw_exec"
        return node["Drivers"].get(wanted, {}).get("Healthy") and node

    def stop(self):
        """Ends all jobs, lets Nomad remove their allocations, ends client and server."""
        if self.alive():
            self._remove_jobs()
            self.end()
        if self.server:
            self.server.end()

    def _remove_jobs(self):
        jobs = [(job["ID"], job["Namespace"]) for job in self.get("/v1/jobs?namespace=*")]
        for job, namespace in jobs:
            self.stop_job(job, purge=False, namespace=namespace)
        for job, namespace in jobs:
            self.stop_job(job, namespace=namespace)
        self.request("PUT", "/v1/system/gc")
        wait_for("Nomad to remove its allocations", lambda: not self.get("/v1/allocations?namespace=*"), 60)
        wait_for("the client to remove their directories", lambda: not self.allocation_directories(), 60)

    def allocation_directories(self):
        return [path for path in self.data.glob("alloc/*") if path.is_dir()]

    # API

    def request(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        return self._exchange(method, self.address + path, data)[1]

    def _exchange(self, method, url, data=None, timeout=20):
        context = ssl.create_default_context(cafile=self.tls / "ca.pem") if self.tls else None
        return exchange(method, url, data, timeout=timeout, token=self.token, tls=context)

    def get(self, path):
        return json.loads(self.request("GET", path))

    def changes(self, path, seconds):
        """Yields what is there now, and again after each change (Nomad's blocking queries), for `seconds`."""
        deadline, index = time.monotonic() + seconds, 0
        while (left := deadline - time.monotonic()) > 0:
            headers, text = self._exchange("GET", f"{self.address}{path}?index={index}&wait={int(left) + 1}s",
                                           timeout=seconds + 10)
            index = headers["X-Nomad-Index"]
            yield json.loads(text)

    def command(self, *arguments, ok=(0,)):
        """The nomad CLI, as an operator uses it; returns its output."""
        run = subprocess.run([self.binary, *map(str, arguments)], env=self.environment(), text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             timeout=120, check=False)
        if run.returncode not in ok:
            raise AssertionError(f"nomad {' '.join(map(str, arguments))}: exit {run.returncode}\n{run.stdout}")
        return run.stdout

    def put_variable(self, path, items):
        self.request("PUT", f"/v1/var/{path}", {"Path": path, "Items": items})

    def run_job(self, file, **variables):
        pairs = [word for name, value in variables.items() for word in ("-var", f"{name}={value}")]
        return self.command("job", "run", "-detach", *pairs, file)

    def run_job_text(self, text, **variables):
        file = self.directory / f"job-{secrets.token_hex(4)}.nomad.hcl"
        file.write_text(text)
        return self.run_job(file, **variables)

    def stop_job(self, job, purge=True, namespace="default"):
        """Stops a job; one that is purged has ended by then.

        Of a job that is purged while it runs, Nomad's client removes the directories as its tasks end. A logmon that
        it forks just then still has the task's secrets/api.sock: their unmount fails as busy, and they stay for ever.
        """
        url = f"/v1/job/{urllib.parse.quote(job, safe='')}"
        self.request("DELETE", f"{url}?namespace={namespace}&purge=false")
        if purge:
            wait_for(f"the allocations of {job} to end", lambda: all(
                allocation["ClientStatus"] in ENDED
                for allocation in self.get(f"{url}/allocations?namespace={namespace}")), 60)
            self.request("DELETE", f"{url}?namespace={namespace}&purge=true")

    def allocation(self, job, seconds=30):
        """The newest allocation of a job."""
        def newest():
            found = self.get(f"/v1/job/{job}/allocations")
            return max(found, key=lambda a: a["CreateIndex"]) if found else None
        return wait_for(f"an allocation of {job}", newest, seconds)["ID"]

    def task(self, allocation, task=EXAMPLE_TASK):
        """The state of a task: State, Failed, Events."""
        states = self.get(f"/v1/allocation/{allocation}").get("TaskStates") or {}
        return states.get(task) or {"State": "none", "Failed": False, "Events": []}

    def wait_task(self, allocation, state, seconds, task=EXAMPLE_TASK):
        """Waits until the task is pending, running or dead; returns its state."""
        def reached():
            now = self.task(allocation, task)
            if now["State"] == "dead" != state:
                raise AssertionError(f"the task is dead:\n{self.story(allocation, task)}")
            return now if now["State"] == state else None
        return wait_for(f"task {task} to be {state}", reached, seconds)

    def story(self, allocation, task=EXAMPLE_TASK):
        """The task's events as text, one a line."""
        return "\n".join(f"{e['Type']}: {e.get('DisplayMessage') or ''} {e.get('Details') or {}}"
                         for e in self.task(allocation, task)["Events"])

    def wait_event(self, allocation, pattern, seconds, task=EXAMPLE_TASK):
        """Waits for an event whose type and message match; returns the newest."""
        def found():
            for event in reversed(self.task(allocation, task)["Events"]):
                if re.search(pattern, f"{event['Type']}: {event.get('DisplayMessage') or ''}"):
                    return event
            return None
        try:
            return wait_for(f"an event matching {pattern!r}", found, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(allocation, task)}") from None

    def logs(self, allocation, stream, task=EXAMPLE_TASK):
        try:
            return self.request("GET", f"/v1/client/fs/logs/{allocation}?task={task}&type={stream}&plain=true")
        except HttpError:
            return ""  # nothing written yet

    def kept_image(self, name):
        """What this node says of a pinned or pre-pulled image: the beginning of its digest; "" when it is not here."""
        key = "unique.driver.jenkins-agent.image." + re.sub(r"[^a-z0-9-]", "_", name.lower())
        node = self.get(f"/v1/node/{self.node}")
        return node["Attributes"].get(key, "")

    # the driver's process

    def plugin_pid(self):
        """The driver process that this agent keeps."""
        mine = [pid for pid in children(self.process.pid) if executable(pid).startswith(str(self.plugins))]
        return mine[0] if len(mine) == 1 else None

    def driver_log(self):
        return "\n".join(line for line in self.log_text().splitlines() if "jenkins-agent" in line)


def install(source, target):
    """A hard link where that is possible, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    target.chmod(0o755)
