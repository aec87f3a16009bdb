#!/usr/bin/env python3
"""Pulls of one image from a registry on loopback: ours, podman's and containerd's (pull and unpack), in turn.

scripts/bench runs this for `images` (tests/bench/images.cc) and prints its lines, one JSON object a figure. Registry,
daemon and clients run in network and mount namespaces of their own, with storage of their own. Each pull goes to an
empty store that lies on the same file system as the others; what was written is synced before the next one begins
and removed at the end only, because ext4 is slow where much was just deleted. The registry's files are in the page
cache. The image is made of the files of this node: four layers of programs, libraries and data, one of deletions.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "image"))
import registries  # noqa: E402

LAYERS = (("/usr/bin", "/usr/sbin"), ("/usr/lib/jvm",), ("/usr/lib", "/usr/libexec"), ("/usr/share",))
LAYER_BYTES = 123 << 20  # unpacked, of each: 257 MB of gzip, about
TARGET, TARGET_SYNCED, TARGET_RSS_MIB = 5.0, 4.0, 64
LIMIT_S = 300  # of one command; nobody waits longer for a figure


def files_below(tops, taken):
    for top in tops:
        for base, dirs, files in os.walk(top):
            dirs.sort()
            for name in sorted(files):
                path = os.path.join(base, name)
                if path not in taken and (os.path.islink(path) or os.path.isfile(path)):
                    yield path


def write_layer(path, tops, taken):
    """A gzip layer of up to LAYER_BYTES of the node's files; its number of entries and unpacked bytes."""
    entries = total = 0
    with open(path, "wb") as out:
        packer = subprocess.Popen(["gzip", "-6", "-c"], stdin=subprocess.PIPE, stdout=out)
        with tarfile.open(fileobj=packer.stdin, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for file in files_below(tops, taken):
                size = os.lstat(file).st_size
                if total + size > LAYER_BYTES:
                    continue
                taken.add(file)
                archive.add(file, file.lstrip("/"), recursive=False)
                entries, total = entries + 1, total + size
        packer.stdin.close()
        if packer.wait() != 0:
            raise RuntimeError("gzip failed")
    return entries, total


def make_image(folder):
    taken, blobs, entries, unpacked = set(), [], 0, 0
    for number, tops in enumerate(LAYERS):
        path = folder / f"layer{number}"
        count, size = write_layer(path, tops, taken)
        entries, unpacked = entries + count, unpacked + size
        blobs.append(path.read_bytes())
        path.unlink()
    gone = folder / "gone.tar"
    with tarfile.open(gone, "w") as archive:
        for file in sorted(taken)[::2000]:
            archive.addfile(tarfile.TarInfo(os.path.join(os.path.dirname(file), ".wh." + os.path.basename(file)).lstrip("/")))
    blobs.append(subprocess.run(["gzip", "-c"], input=gone.read_bytes(), stdout=subprocess.PIPE, check=True).stdout)
    image = registries.Image(blobs)
    image.write_layout(folder / "layout")
    return f"{sum(map(len, blobs)) / 1e6:.0f} MB gzip, {len(blobs)} layers, {unpacked / 1e6:.0f} MB in {entries} entries"


def timed(command, **more):
    """Seconds, those of CPU, and peak RSS in MiB of a command and its children."""
    begin = time.monotonic()
    process = subprocess.Popen(["timeout", str(LIMIT_S), *map(str, command)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, **more)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]}: {error}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Peers:
    def __init__(self, folder, name):
        self.folder, self.name, self.count, self.daemon = folder, name, 0, None

    def fresh(self):
        self.count += 1
        path = self.folder / f"s{self.count}"  # podman takes 50 characters, not more
        path.mkdir()
        return path

    def ours(self, *options):
        return timed([os.environ["DRIVER_BINARY"], "images", "--store", self.fresh(), "pull", "--json", "--plain-http",
                      *options, self.name])

    def ours_unsynced(self):
        return self.ours("--no-sync")

    def podman(self):
        root = self.fresh()
        return timed(["podman", "--root", root / "root", "--runroot", root / "run", "--storage-driver", "overlay", "pull",
                      "--quiet", "--tls-verify=false", self.name])

    def ctr(self):
        root = self.fresh()
        config = root / "config.toml"
        config.write_text(f'version = 2\nroot = "{root}/root"\nstate = "{root}/state"\n'
                          'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                          f'[grpc]\naddress = "{root}/socket"\n[ttrpc]\naddress = "{root}/ttrpc"\n')
        with open(root / "log", "wb") as log:
            self.daemon = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            client = ["ctr", "--address", root / "socket"]
            while subprocess.run([*client, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 check=False).returncode:
                if time.monotonic() > deadline:
                    raise RuntimeError((root / "log").read_text()[-2000:])
            return timed([*client, "images", "pull", "--plain-http", "--snapshotter", "overlayfs", self.name])
        finally:
            self.daemon.kill()
            self.daemon.wait()


def version(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[2]


def figure(name, ours, conditions, **more):
    print(json.dumps({"figure": name, "conditions": conditions, "ours": round(ours, 3), **more}), flush=True)


def measure(options, folder):
    say = lambda text: print(text, file=sys.stderr, flush=True)
    say("making the image (half a minute)")
    # In a process of its own: what this one ever had in memory counts as the peak of what it starts, wait4(2).
    with multiprocessing.get_context("fork").Pool(1) as maker:
        what = maker.apply(make_image, (folder,))
    registry = registries.DockerRegistry(folder)
    try:
        registry.push(folder / "layout", "bench/agent:1")
        peers = Peers(folder, f"{registry.host}/bench/agent:1")
        ways = {"unsynced": peers.ours_unsynced, "synced": peers.ours, "podman": peers.podman, "ctr": peers.ctr}
        seconds, cpu, memory = ({way: [] for way in ways} for _ in range(3))
        for run in range(options.runs):
            for way, pull in ways.items():
                os.sync()
                took, busy, peak = pull()
                seconds[way].append(took)
                cpu[way].append(busy)
                memory[way].append(peak)
                say(f"run {run + 1}: {way} {took:.2f} s, {busy:.2f} s of CPU, {peak:.0f} MiB")
    finally:
        registry.close()
        subprocess.run(["sh", "-c", f"grep -o '{folder}[^ ]*' /proc/self/mountinfo | sort -ru | xargs -r umount -l"],
                       check=False)
    conditions = f"{what}, registry on loopback, cold store, n {options.runs}"
    names = {"podman": f"podman {version('podman', '--version')}", "ctr": f"ctr {version('ctr', '--version')}"}
    for way, target in ("unsynced", TARGET), ("synced", TARGET_SYNCED):
        ours = statistics.median(seconds[way])
        for peer, title in names.items():
            theirs = statistics.median(seconds[peer])
            figure(f"image_pull_{way}_s", ours, conditions, peer=title, theirs=round(theirs, 3),
                   target=f"{target:.0f} times as fast", met=theirs / ours >= target)
    # containerd's work is its daemon's and not in here. On a busy machine this says more than the time.
    figure("image_pull_cpu_s", statistics.median(cpu["synced"]), conditions, peer=names["podman"],
           theirs=round(statistics.median(cpu["podman"]), 3))
    figure("image_pull_rss_mib", max(memory["synced"] + memory["unsynced"]), conditions, peer=names["podman"],
           theirs=round(max(memory["podman"]), 1), target=f"<= {TARGET_RSS_MIB}",
           met=max(memory["synced"] + memory["unsynced"]) <= TARGET_RSS_MIB)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, "-B", __file__, "--inside", "--runs",
                              str(options.runs)])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jenkins-agent-bench-", dir="/var/tmp"))
    try:
        measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
