"""Processes, mounts, cgroups and files of a run, and what of them is left after it."""
import contextlib
import os
import pathlib
import re
import time


def _read(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def executable(pid):
    return _link(f"/proc/{pid}/exe")


def command_line(pid):
    words = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return words or f"[{_read(f'/proc/{pid}/comm').decode(errors='replace').strip()}]"


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid):
    text = _read(f"/proc/{pid}/stat").decode(errors="replace")
    return int(text.rpartition(")")[2].split()[1]) if text else 0


def children(pid):
    return [other for other in all_pids() if parent(other) == pid]


def our_processes():
    """Processes in this network namespace, but for this one: {pid: command line}.

    The namespace is ours alone, and whatever Nomad, the driver or a build starts inherits it, so this
    finds also what has left its parent, session and directory.
    """
    mine = _link("/proc/self/ns/net")
    return {pid: command_line(pid) for pid in all_pids()
            if pid != os.getpid() and _link(f"/proc/{pid}/ns/net") == mine}


def sandboxed_processes():
    """Those of ours that live in a pid namespace of their own, and not ready for a task to come."""
    host = _link("/proc/self/ns/pid")
    return {pid: line for pid, line in our_processes().items()
            if _link(f"/proc/{pid}/ns/pid") != host and _read(f"/proc/{pid}/comm") != b"ja-standby\n"}


def cpu_quota(pid):
    """The hard CPU cap of a process's cgroup in cores, 0 without one."""
    for line in _read(f"/proc/{pid}/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            directory = f"/sys/fs/cgroup/{controllers}{path}"
            quota, period = (_read(f"{directory}/cpu.cfs_{name}_us") for name in ("quota", "period"))
            return max(int(quota), 0) / int(period)
        if not controllers and (limit := _read(f"/sys/fs/cgroup{path}/cpu.max").split()):
            return 0 if limit[0] == b"max" else int(limit[0]) / int(limit[1])
    return 0


def mount_points():
    """In the order of mounting; octal escapes undone."""
    lines = _read("/proc/self/mountinfo").decode(errors="replace").splitlines()
    return [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines]


def nomad_cgroups():
    """Directories of Nomad's trees in every hierarchy."""
    found = set()
    for top in [*pathlib.Path("/sys/fs/cgroup").glob("*/nomad"), pathlib.Path("/sys/fs/cgroup/nomad.slice"),
                *pathlib.Path("/sys/fs/cgroup").glob("*/nomad.slice")]:
        if top.is_dir():
            found |= {directory for directory, _, _ in os.walk(top)}
    return found


# What Nomad's client itself makes at its start and never removes.
_NOMADS_OWN = re.compile(r"/nomad(\.slice)?(/(share|reserve)(\.slice)?)?$")
# Where careless programs leave files; in /tmp only names that Nomad, go-plugin and JVMs use, because
# other tests work there at the same time.
_PLACES = {"/run": "", "/var/lib": "", "/var/run/netns": "", "/dev/shm": "", "/dev/mqueue": "",
           "/tmp": r"^(Nomad|nomad|plugin\d|hsperfdata|hudson|winstone|jetty|jffi)"}


class Snapshot:
    """What there is of ours on the machine: taken before a run and compared after it."""

    def __init__(self):
        self.processes = our_processes()
        self.mounts = mount_points()
        self.cgroups = {path for path in nomad_cgroups() if not _NOMADS_OWN.search(path)}
        self.files = {os.path.join(place, name) for place, names in _PLACES.items() if os.path.isdir(place)
                      for name in os.listdir(place) if re.search(names, name)}

    def added_since(self, before):
        """{kind: sorted list}, empty lists included."""
        return {
            "processes": sorted(f"{pid}: {line}" for pid, line in self.processes.items()
                                if pid not in before.processes),
            "mounts": sorted(set(self.mounts) - set(before.mounts)),
            "cgroups": sorted(self.cgroups - before.cgroups),
            "files": sorted(self.files - before.files),
        }


def leftovers(before, seconds=10):
    """What is there that was not there before; processes on their way out get `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        added = {kind: found for kind, found in Snapshot().added_since(before).items() if found}
        if not added or time.monotonic() > deadline:
            return added
        time.sleep(0.05)


def remove_nomad_cgroups():
    """The cgroups that Nomad's client made at its start, unless another one is running on this host."""
    if any(os.path.basename(executable(pid)) == "nomad" for pid in all_pids()):
        return
    for path in sorted(nomad_cgroups(), key=len, reverse=True):
        if _NOMADS_OWN.search(path):
            with contextlib.suppress(OSError):  # a task is still in it
                os.rmdir(path)
