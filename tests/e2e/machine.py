"""What a run needs of the machine: tools, a private network, a directory, processes that end with it."""
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from traces import mount_points

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
DRIVER_FILE = "nomad-driver-jenkins-agent"
DRIVER = pathlib.Path(os.environ.get("DRIVER_BINARY") or ROOT / "build/release/driver" / DRIVER_FILE)
WAR = CACHE / "maven/hudson-war-3.3.2.war"


def nomad_binary():
    for candidate in (os.environ.get("NOMAD_BINARY"), CACHE / "nomad", shutil.which("nomad")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    return None


def missing():
    """What this machine lacks, in words for a skip reason; empty: a run is possible."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("root")
    lacks += [tool for tool in ("java", "javac", "unshare", "ip") if not shutil.which(tool)]
    if nomad_binary() is None:
        lacks.append("nomad (scripts/setup)")
    if not WAR.exists():
        lacks.append(f"{WAR.name} (scripts/setup)")
    return lacks


def require():
    """Skips the calling test module when the machine cannot run it; fails when only the driver is missing."""
    lacks = missing()
    if lacks:
        raise unittest.SkipTest("needs " + ", ".join(lacks))
    if not DRIVER.exists():
        raise AssertionError(f"no driver at {DRIVER}: run scripts/build release")


def enter_private_network(hide=()):
    """Runs this program again in a network namespace of its own: the controller binds wildcard ports.

    hide: directories of the host that the run finds empty, in a mount namespace of its own.
    """
    marker = "PRIVATE_NETWORK_OF"
    if os.environ.get(marker) == str(os.getpid()) or missing():
        return
    os.environ[marker] = str(os.getpid())  # the exec chain below keeps the pid
    namespaces = ["--net", "--mount"] if hide else ["--net"]
    steps = ["ip link set lo up", *(f"mount -t tmpfs own {path}" for path in hide), 'exec "$@"']
    os.execvp("unshare", ["unshare", *namespaces, "--", "sh", "-c", " && ".join(steps), "sh",
                          sys.executable, *sys.argv])


def main(hide=()):
    """The main program of a test file."""
    enter_private_network(hide)
    unittest.main(verbosity=2)



def wait_for(what, probe, seconds):
    """Returns the first true result of probe(); fails with its last result after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}; last: {result!r}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HttpError(Exception):
    def __init__(self, method, url, status, body):
        super().__init__(f"{method} {url}: {status} {body[:300]}")
        self.status, self.body = status, body


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


# Neither a proxy of the environment nor redirects: the controller answers 302 for "done".
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def http(method, url, body=None, content_type=None, ok=(200, 302), timeout=20, token="", tls=None):
    """One request; returns the body as text. HttpError for other answers, OSError for none."""
    return exchange(method, url, body, content_type, ok, timeout, token, tls)[1]


def exchange(method, url, body=None, content_type=None, ok=(200, 302), timeout=20, token="", tls=None):
    """As http(), but returns (headers, body). token: of Nomad's ACLs; tls: an SSLContext for https."""
    headers = {"Content-Type": content_type} if content_type else {}
    if token:
        headers["X-Nomad-Token"] = token
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    opener = _OPENER
    if tls:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect(),
                                             urllib.request.HTTPSHandler(context=tls))
    try:
        with opener.open(request, timeout=timeout) as answer:
            status, replied, text = answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        status, replied, text = error.code, error.headers, error.read().decode(errors="replace")
    if status not in ok:
        raise HttpError(method, url, status, text)
    return replied, text


def _end_with_parent():
    """In the child: a test that is killed takes its servers with it (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the demo's owner process blocks signals


class Scratch:
    """The directory of one run. Removed at the end unless E2E_KEEP is set."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="jae-"))
        self.path.chmod(0o755)  # tasks run as other users

    def remove(self):
        if os.environ.get("E2E_KEEP"):
            print(f"kept: {self.path}", file=sys.stderr)
            return
        mounts = [mount for mount in mount_points() if mount.startswith(f"{self.path}/")]
        if mounts:  # removing through a mount would remove what it shows
            raise AssertionError(f"still mounted: {mounts}")
        shutil.rmtree(self.path)


class Server:
    """A process of ours with a log file, ended by its pid."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.log = directory / f"{name}.log"
        self.process = None

    def spawn(self, command, environment):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, cwd=self.directory, start_new_session=True, preexec_fn=_end_with_parent)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def must_live(self):
        if not self.alive():
            raise AssertionError(f"{self.name} has ended:\n{self.log_tail()}")

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM, seconds=30):
        """Returns the exit code; SIGKILL when the signal does not help."""
        if self.process is None:
            return None
        if self.alive():
            self.send(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end within {seconds} s of signal {number}") from None

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines=40):
        return "\n".join(self.log_text().splitlines()[-lines:])
