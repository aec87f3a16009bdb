"""Machines of a cluster: a network namespace for each, joined by a bridge in the run's own."""
import os
import signal
import subprocess

from machine import wait_for
from traces import all_pids

NETWORK = "10.99.0"
SERVERS = f"{NETWORK}.1"  # the address of the run's own namespace
_BRIDGE = "cluster0"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def make_network():
    """Once in a run, which has a network and a /run of its own: `ip netns` keeps its names there."""
    ip("link", "add", _BRIDGE, "type", "bridge")
    ip("address", "add", f"{SERVERS}/24", "dev", _BRIDGE)
    ip("link", "set", _BRIDGE, "up")


class Host:
    """A machine, so far as network and processes go: whatever is started on it stays in its namespace.

    enter: the beginning of a command line that runs there.
    """

    def __init__(self, number):
        self.name, self.address = f"node-{number}", f"{NETWORK}.{number + 1}"
        ip("netns", "add", self.name)
        self._path = f"/run/netns/{self.name}"
        self.enter = ["nsenter", f"--net={self._path}", "--"]
        ip("link", "add", f"veth{number}", "master", _BRIDGE, "up", "type", "veth", "peer", "name", "eth0", "netns",
           self.name)
        for words in (["address", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                      ["link", "set", "lo", "up"]):
            ip("-netns", self.name, *words)

    def pids(self):
        """Of every process on it."""
        own = os.stat(self._path).st_ino
        return [pid for pid in all_pids() if _network(pid) == own]

    def power_off(self):
        """Ends every process on it, and nothing else, as a power cut does for those who look from outside."""
        def none_left():
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not self.pids()
        wait_for(f"the processes of {self.name} to end", none_left, 30)


def _network(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
