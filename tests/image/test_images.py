"""The operator's `images` commands against registries and layouts, as root. Numbers are those of the acceptance
cases of the image store."""
import base64
import gzip
import hashlib
import json
import os
import pathlib
import random
import select
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest

import test_layers as layers
import registries
from registries import DockerRegistry, Fake, Image, digest, make_certificate
from test_layers import directory, entry, symlink, tar

TOOLS = os.environ["TOOLS_PROGRAM"]


def sample_layers(seed=1, size=60000):
    rng = random.Random(seed)
    return [gzip.compress(tar(directory("./"), directory("bin"), entry("bin/sh", data=rng.randbytes(size), mode=0o755))),
            gzip.compress(tar(directory("opt"), entry("opt/a", data=rng.randbytes(size)), entry("bin/.wh.sh"))),
            gzip.compress(tar(entry("opt/b", data=rng.randbytes(size))))]


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Images(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jenkins-agent-images-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.store = self.dir / "images"

    def fake(self, **more):
        fake = Fake(**more)
        self.addCleanup(fake.close)
        return fake

    def run_images(self, *arguments, store=None):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.dir), "LSAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run([TOOLS, "images", "--store", store or self.store, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, env=environment)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done

    def images(self, *arguments, **more):
        done = self.run_images(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def pull(self, name, *options, **more):
        return json.loads(self.images("pull", "--json", name, *options, **more))

    def refused(self, name, *options, store=None):
        """The one line that a failed pull says; nothing is left of it."""
        done = self.run_images("pull", "--plain-http", name, *options, store=store)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(self.leftovers(store or self.store), [])
        return done.stderr

    def leftovers(self, store):
        return [p.name for folder in ("tmp", "trash") for p in (store / folder).iterdir()] if store.exists() else []

    def list(self):
        return json.loads(self.images("ls", "--json"))

    def rootfs(self, name):
        """The image's tree, as overlayfs shows it."""
        paths = [x["path"] for x in json.loads(self.images("inspect", name))["layers"]]
        work = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        layers.overlay(work / "merged", work / "empty", paths)
        try:
            return layers.tree(work / "merged")
        finally:
            subprocess.run(["umount", work / "merged"], check=True)

    def umoci(self, layout):
        bundle = self.dir / "bundle"
        subprocess.run(["umoci", "unpack", "--image", f"{layout}:x", bundle], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True)
        return layers.tree(bundle / "rootfs")


class WithoutAStore(Images):
    def test_who_only_looks_makes_none(self):
        for command, empty in (("ls", []), ("du", {"images": [], "bytes": 0}),
                               ("verify", {"images": [], "damaged_layers": 0, "removed": True}),
                               ("gc", {"removed": [], "bytes": 0, "missing_bytes": 0, "dry_run": False})):
            with self.subTest(command):
                self.assertEqual(self.images(command),
                                 f"there are no images: {self.store} is no image store, none was pulled there\n")
                self.assertEqual(json.loads(self.images(command, "--json")), empty)
        for command in ("inspect", "verify", "rm", "unpin"):
            with self.subTest(command):
                done = self.run_images(command, "a:1")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn(f"there are no images: {self.store} is no image store", done.stderr)
        self.assertFalse(self.store.exists())

    def test_what_cannot_be_a_store_is_an_error(self):
        self.store.write_text("")
        self.assertIn("Not a directory", self.run_images("ls").stderr)

    def test_an_image_can_be_pinned_before_its_first_pull(self):
        self.images("pin", "a:1")
        self.assertEqual(self.list(), [])
        self.images("unpin", "a:1")


@unittest.skipUnless(all(shutil.which(p) for p in (registries.PROGRAM, "skopeo", "umoci", "zstd")),
                     "needs docker-registry, skopeo, umoci and zstd")
class RealRegistry(Images):
    def setUp(self):
        super().setUp()
        self.registry = DockerRegistry(self.dir)
        self.addCleanup(self.registry.close)

    def push(self, blobs, name, *options):
        layout = self.dir / f"layout-{len(list(self.dir.iterdir()))}"
        Image(blobs).write_layout(layout)
        self.registry.push(layout, name, *options)
        return layout

    def test_01_a_pulled_image_looks_as_under_umoci(self):
        layout = self.push(layers.random_layers(random.Random(3)), "a/b:1")
        name = f"{self.registry.host}/a/b:1"
        self.pull(name, "--plain-http")
        mine = self.rootfs(name)
        self.assertEqual(mine, self.umoci(layout))
        self.assertGreater(len(mine), 10)

    def test_02_every_format(self):
        blobs = sample_layers()
        packed = layers.tar(entry("z", data=b"zstd" * 1000))
        zstd = subprocess.run(["zstd", "-c"], input=packed, stdout=subprocess.PIPE, check=True).stdout
        half = len(packed) // 2
        # zstd:chunked and eStargz end with what a plain reader passes over.
        chunked = zstd + b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + os.urandom(100)
        stargz = b"".join(gzip.compress(packed[i:i + 700]) for i in range(0, len(packed), 700)) + gzip.compress(b"")
        for number, (layer, options) in enumerate([
                (packed, []), (zstd, []), (gzip.compress(packed), ["--format", "v2s2"]),
                (gzip.compress(packed[:half]) + gzip.compress(packed[half:]), []), (chunked, []), (stargz, [])]):
            self.push([*blobs, layer], f"formats:{number}", *options)
            name = f"{self.registry.host}/formats:{number}"
            self.pull(name, "--plain-http")
            self.assertIn("z", self.rootfs(name))

    def test_03_and_04_only_what_is_missing_is_fetched(self):
        base, changed = sample_layers(), sample_layers(seed=2)
        self.push(base, "a:1")
        self.push([base[0], base[1], changed[2]], "a:2")
        name = f"{self.registry.host}/a"
        first = self.pull(name + ":1", "--plain-http")
        self.assertEqual((first["layers"], first["cached_layers"], first["cached"]), (3, 0, False))
        blobs = self.registry.blob_requests()
        self.assertEqual(blobs, 4)  # three layers and the config
        again = self.pull(name + ":1", "--plain-http")
        self.assertTrue(again["cached"])
        self.assertEqual(self.registry.blob_requests(), blobs)  # the manifest says it all
        second = self.pull(name + ":2", "--plain-http")
        self.assertEqual((second["cached_layers"], second["fetched_bytes"]), (2, len(changed[2])))
        use = json.loads(self.images("du", "--json"))
        self.assertEqual(len(use["images"]), 2)
        self.assertLess(use["bytes"], sum(i["bytes"] for i in use["images"]))

    def test_17_a_moved_tag_brings_the_changed_layers_only(self):
        base = sample_layers()
        self.push(base, "a:1")
        name = f"{self.registry.host}/a:1"
        old = self.pull(name, "--plain-http")["manifest"]
        self.push([*base[:2], sample_layers(seed=3)[2]], "a:1")
        new = self.pull(name, "--plain-http")
        self.assertNotEqual(new["manifest"], old)
        self.assertEqual(new["cached_layers"], 2)
        by_digest = {i["manifest"]: i["names"] for i in self.list()}
        self.assertEqual(by_digest, {old: [], new["manifest"]: [name]})

    def test_19_names_and_digests(self):
        self.push(sample_layers(), "deep/er/name_x:v1")
        name = f"{self.registry.host}/deep/er/name_x"
        found = self.pull(name + ":v1", "--plain-http")["manifest"]
        for other in f"{name}@{found}", f"{name}:ignored@{found}", f"docker://{name}:v1":
            self.assertEqual(self.pull(other, "--plain-http")["manifest"], found)
        self.assertIn("manifest unknown", self.refused(f"{name}@sha256:{'0' * 64}"))
        self.assertIn("MANIFEST_UNKNOWN", self.refused(name + ":nope"))

    def test_10_killed_at_any_moment_the_next_pull_works(self):
        image = [gzip.compress(tar(*[entry(f"d{n}/f{i}", data=os.urandom(2000)) for i in range(150)])) for n in range(4)]
        self.push(image, "big:1")
        name = f"{self.registry.host}/big:1"
        begin = time.monotonic()
        self.pull(name, "--plain-http")
        whole = time.monotonic() - begin
        self.images("rm", name)
        rng, cut_short = random.Random(5), 0
        for number in range(50):
            process = subprocess.Popen([TOOLS, "images", "--store", self.store, "pull", "--plain-http", name],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env={"PATH": "/usr/bin", "LSAN_OPTIONS": "detect_leaks=0"})
            try:
                process.wait(timeout=rng.random() * whole)
            except subprocess.TimeoutExpired:
                # The whole of it, or the confined child alone.
                child = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(child[0]) if number % 2 and child else process.pid, signal.SIGKILL)
            cut_short += process.wait() != 0
            for image_ in self.list():
                # Perhaps without a name, which is published last.
                self.assertEqual(len(self.rootfs(image_["manifest"])), 604)
                self.images("rm", image_["manifest"])
        self.assertGreater(cut_short, 10)
        self.pull(name, "--plain-http")
        self.assertEqual(self.leftovers(self.store), [])
        self.assertEqual(len(self.rootfs(name)), 604)
        self.assertIn("intact", self.images("verify", name))

    def test_pulls_of_one_image_at_the_same_time(self):
        self.push(sample_layers(size=2000000), "same:1")
        name = f"{self.registry.host}/same:1"
        running = [subprocess.Popen([TOOLS, "images", "--store", self.store, "pull", "--plain-http", name],
                                    stdout=subprocess.DEVNULL) for _ in range(6)]
        self.assertEqual([p.wait() for p in running], [0] * 6)
        self.assertEqual(len(self.list()), 1)
        self.assertEqual(self.leftovers(self.store), [])
        self.assertIn("opt/b", self.rootfs(name))


class Misbehaving(Images):
    def setUp(self):
        super().setUp()
        self.registry = self.fake()
        self.image = Image(sample_layers())
        self.registry.put(self.image)
        self.name = f"{self.registry.host}/a/b:1"

    def test_18_a_registry_that_is_down(self):
        self.registry.close()
        self.registry.close = lambda: None
        self.assertIn(f"{self.registry.host}: Connection refused", self.refused(self.name))

    def test_20_the_platform_of_this_node(self):
        other = Image(sample_layers(seed=9), architecture="arm64")
        entries = [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(m), "size": len(m),
                    "platform": {"os": system, "architecture": cpu}}
                   for m, system, cpu in ((other.manifest, "linux", "arm64"), (b"{}", "unknown", "unknown"),
                                          (self.image.manifest, "linux", "amd64"))]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
        self.registry.put(other, "arm")
        self.registry.manifests["multi"] = json.dumps(index).encode()
        found = self.pull(f"{self.registry.host}/a/b:multi", "--plain-http")
        self.assertEqual(found["manifest"], digest(self.image.manifest))
        index["manifests"] = entries[:2]
        self.registry.manifests["none"] = json.dumps(index).encode()
        self.assertIn("has nothing for linux/amd64; it has: linux/arm64", self.refused(f"{self.registry.host}/a/b:none"))
        self.assertIn("is for linux/arm64", self.refused(f"{self.registry.host}/a/b:arm"))

    def auths(self, **entry_):
        path = self.dir / "auth.json"
        path.write_text(json.dumps({"auths": {self.registry.host: entry_}}))
        return ["--auth-file", str(path)]

    def test_21_basic_authentication(self):
        secret = base64.b64encode(b"me:pass:word").decode()

        def hook(request):
            if request.headers.get("Authorization") == f"Basic {secret}":
                return False
            return request.error(401, "UNAUTHORIZED", "who?", WWW_Authenticate='Basic realm="x"')
        self.registry.hook = hook
        self.assertIn("wants credentials", self.refused(self.name))
        wrong = self.refused(self.name, *self.auths(username="me", password="hunter2"))
        self.assertIn("401", wrong)
        self.assertNotIn("hunter2", wrong)
        self.pull(self.name, "--plain-http", *self.auths(auth=secret))

    def test_21_tokens(self):
        issued = []

        def hook(request):
            if request.path.startswith("/token"):
                issued.append((request.path, request.headers.get("Authorization"), getattr(request, "form", "")))
                return request.answer(200, json.dumps({"token": f"t{len(issued)}", "expires_in": 300}).encode())
            if issued and request.headers.get("Authorization") == f"Bearer t{len(issued)}":
                return False
            return request.error(401, "UNAUTHORIZED", "no token", WWW_Authenticate=(
                f'Bearer realm="http://{self.registry.host}/token",service="the registry",scope="repository:a/b:pull"'))
        self.registry.hook = hook
        self.pull(self.name, "--plain-http")
        self.assertEqual(len(issued), 1)
        self.assertEqual(issued[0][:2], ("/token?service=the%20registry&scope=repository%3Aa%2Fb%3Apull", None))
        self.images("rm", self.name)
        self.pull(self.name, "--plain-http", *self.auths(username="me", password="pw"))
        self.assertEqual(issued[1][1], "Basic " + base64.b64encode(b"me:pw").decode())
        self.images("rm", self.name)
        self.pull(self.name, "--plain-http", *self.auths(identitytoken="refresh me"))
        self.assertIn("refresh_token=refresh%20me", issued[2][2])
        self.assertIsNone(issued[2][1])

    def test_21_an_aged_token_is_replaced_amid_the_pull(self):
        valid = ["t1"]

        def hook(request):
            if request.path.startswith("/token"):
                return request.answer(200, json.dumps({"token": valid[0]}).encode())
            if request.headers.get("Authorization") != f"Bearer {valid[0]}":
                return request.error(401, "UNAUTHORIZED", "old", WWW_Authenticate=(
                    f'Bearer realm="http://{self.registry.host}/token"'))
            if "/manifests/" in request.path:
                valid[0] = "t2"
            return False
        self.registry.hook = hook
        self.pull(self.name, "--plain-http")

    def test_21_redirects_carry_no_credentials_to_another_host(self):
        storage = self.fake()
        storage.put(self.image)
        secret = base64.b64encode(b"me:pw").decode()

        def hook(request):
            if request.headers.get("Authorization") != f"Basic {secret}":
                return request.error(401, "UNAUTHORIZED", "who?", WWW_Authenticate='Basic realm="x"')
            if "/blobs/" in request.path:
                return request.answer(307, Location=f"http://{storage.host}{request.path}?signature=s3cret")
            return False
        self.registry.hook = hook
        self.pull(self.name, "--plain-http", *self.auths(auth=secret))
        self.assertEqual(len(storage.requests), 4)
        self.assertFalse(any("Authorization" in headers for _, headers in storage.requests))
        # What the storage asks for it does not get.
        storage.hook = lambda request: request.error(401, "X", "y", WWW_Authenticate='Basic realm="x"')
        self.images("rm", self.name)
        self.refused(self.name, *self.auths(auth=secret))
        self.assertFalse(any("Authorization" in headers for _, headers in storage.requests))

    def test_22_a_connection_cut_again_and_again_is_continued(self):
        rng = random.Random(1)
        self.image = Image([gzip.compress(tar(entry("f", data=rng.randbytes(3000000))))])
        self.registry.put(self.image)
        ranges = []

        def hook(request):
            if "/blobs/" + self.image.layers[0] not in request.path:
                return False
            data = self.image.blobs[self.image.layers[0]]
            begin = int(request.headers.get("Range", "bytes=0-")[6:-1])
            ranges.append(begin)
            request.send_response(206 if begin else 200)
            if begin:
                request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            request.send_header("Content-Length", str(len(data) - begin))
            request.end_headers()
            request.wfile.write(data[begin:begin + 1000000])
            request.wfile.flush()
            return True
        self.registry.hook = hook
        self.pull(self.name, "--plain-http")
        self.assertEqual(len(ranges), 4)
        self.assertEqual(ranges, sorted(ranges))

    def test_22_servers_that_do_not_understand_ranges(self):
        blob = self.image.layers[0]
        data = self.image.blobs[blob]
        mode, asked = ["whole"], []

        def hook(request):
            if f"/blobs/{blob}" not in request.path:
                return False
            asked.append(request.headers.get("Range"))
            if request.headers.get("Range") is None:
                request.send_response(200)
                request.send_header("Content-Length", str(len(data)))
                request.end_headers()
                request.wfile.write(data[:20000])
                return True
            if mode[0] == "whole":
                return request.answer(200, data)
            return request.answer(206, data, Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
        self.registry.hook = hook
        self.pull(self.name, "--plain-http")
        self.assertEqual(asked, [None, "bytes=20000-"])
        self.images("rm", self.name)
        mode[0] = "wrong"
        self.assertIn("another range", self.refused(self.name))

    def test_23_busy_servers_are_asked_again_when_they_say(self):
        times = []

        def hook(request):
            if "/manifests/" not in request.path:
                return False
            times.append(time.monotonic())
            if len(times) == 1:
                return request.error(429, "TOOMANYREQUESTS", "slowly", Retry_After="2")
            return request.error(503, "X", "busy") if len(times) == 2 else False
        self.registry.hook = hook
        self.pull(self.name, "--plain-http")
        self.assertEqual(len(times), 3)
        self.assertGreaterEqual(times[1] - times[0], 2)
        self.registry.hook = lambda request: request.error(503, "BUSY", "still busy")
        self.assertIn("503 Service Unavailable (BUSY: still busy)", self.refused(f"{self.registry.host}/a/b:2"))
        # What is final is not asked twice.
        self.registry.hook = lambda request: request.error(403, "DENIED", "not you")
        self.registry.requests.clear()
        self.assertIn("403 Forbidden (DENIED: not you)", self.refused(f"{self.registry.host}/a/b:2"))
        self.assertEqual(len(self.registry.requests), 1)

    def test_24_content_that_lies(self):
        layer = self.image.layers[1]
        data = self.image.blobs[layer]
        flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        for bad in flipped, data[:-1] + bytes([data[-1] ^ 1]), data + b"x", b"", b"x" * len(data):
            self.registry.blobs[layer] = bad
            self.assertIn(f"layer {layer[7:19]}: ", self.refused(self.name))
        self.registry.blobs[layer] = data
        lies = Image(sample_layers(), diff_ids=["sha256:" + "1" * 64] * 3)
        self.registry.put(lies, "lies")
        self.assertIn("unpacks to has the digest", self.refused(f"{self.registry.host}/a/b:lies"))
        short = Image(sample_layers())
        short.document["layers"][2]["size"] -= 1
        self.registry.put(short, "short")
        self.assertIn("is longer than", self.refused(f"{self.registry.host}/a/b:short"))
        few = Image(sample_layers())
        del few.document["layers"][2]
        self.registry.put(few, "few")
        self.assertIn("names 3 layers, its manifest 2", self.refused(f"{self.registry.host}/a/b:few"))
        self.registry.manifests[digest(self.image.manifest)] = self.image.manifest + b" "
        self.assertIn("does not have the digest",
                      self.refused(f"{self.registry.host}/a/b@{digest(self.image.manifest)}"))
        self.assertEqual(self.list(), [])

    def test_24_a_mirror_that_lies_is_left_for_the_registry(self):
        mirror = self.fake()
        mirror.put(self.image)
        layer = self.image.layers[0]
        data = self.image.blobs[layer]
        mirror.blobs[layer] = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        del mirror.blobs[self.image.layers[1]]
        options = ["--mirror", f"http://{mirror.host}", *self.auths(username="me", password="pw")]
        self.pull(self.name, "--plain-http", *options)
        self.assertEqual(sorted(p.rpartition("/")[2] for p in self.registry.asked("blobs")),
                         sorted([layer, self.image.layers[1]]))
        # What a tag means only the registry says; a mirror is never told who we are.
        self.assertEqual(mirror.asked("manifests"), [])
        self.assertTrue(all(f"ns={self.registry.host.replace(':', '%3A')}" in p for p, _ in mirror.requests))
        self.assertFalse(any("Authorization" in headers for _, headers in mirror.requests))

    def test_28_redirects_that_are_not_followed(self):
        self.registry.hook = lambda request: request.answer(307, Location=request.path)
        self.assertIn("redirects too often", self.refused(self.name))
        for target in "http://169.254.169.254/latest", "http://[fe80::1]/x":
            self.registry.hook = lambda request, to=target: request.answer(307, Location=to)
            self.assertIn("link-local", self.refused(self.name))
        self.registry.hook = lambda request: request.answer(307, Location="file:///etc/shadow")
        self.assertIn("no url", self.refused(self.name))

    def test_28_a_token_server_without_tls_is_not_asked(self):
        both, cert = make_certificate(self.dir)
        secure, thief = self.fake(tls=both), self.fake()
        secure.put(self.image)
        name = f"{secure.host}/a/b:1"
        self.pull(name, "--ca-file", str(cert))
        self.images("rm", name)
        self.assertIn("certificate", self.run_images("pull", name).stderr)
        secure.hook = lambda request: request.error(
            401, "UNAUTHORIZED", "x", WWW_Authenticate=f'Bearer realm="http://{thief.host}/token"')
        self.assertIn("without https", self.run_images("pull", name, "--ca-file", str(cert)).stderr)
        secure.hook = lambda request: request.answer(307, Location=f"http://{thief.host}/x")
        self.assertIn("https to http", self.run_images("pull", name, "--ca-file", str(cert)).stderr)
        self.assertEqual(thief.requests, [])

    def test_29_a_full_disk(self):
        small = self.dir / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=True)
        zeros = Image([gzip.compress(tar(entry("f", data=bytes(3000000))))])
        self.registry.put(zeros, "zeros")
        store = small / "images"
        self.assertIn("No space left", self.refused(f"{self.registry.host}/a/b:zeros", store=store))
        big = Image([gzip.compress(tar(entry("f", data=random.Random(1).randbytes(900000))))])
        self.registry.put(big, "big")
        self.assertRegex(self.refused(f"{self.registry.host}/a/b:big", store=store), "needs about 2 MiB in .* 0 MiB are free")
        self.pull(self.name, "--plain-http", store=store)

    def test_29_a_disk_without_inodes(self):
        small = self.dir / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "tmpfs", small], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=True)
        many = Image([gzip.compress(tar(*(entry(f"f{n}", data=b"x") for n in range(300))))])
        self.registry.put(many, "many")
        store = small / "images"
        self.assertIn("No space left", self.refused(f"{self.registry.host}/a/b:many", store=store))
        self.pull(self.name, "--plain-http", store=store)
        self.assertIn("No space left", self.refused(f"{self.registry.host}/a/b:many", store=store))
        self.assertIn("intact", self.images("verify", store=store))
        subprocess.run(["mount", "-o", "remount,nr_inodes=2000", small], check=True)
        self.pull(f"{self.registry.host}/a/b:many", "--plain-http", store=store)

    def worker(self, **request):
        """The worker as the plugin runs it, its request written."""
        process = subprocess.Popen([TOOLS, "image-pull"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env={"PATH": "/usr/bin:/bin", "LSAN_OPTIONS": "detect_leaks=0"})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdin.close)
        request = {"store": str(self.store), "image": self.name, "plain_http": True, **request}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return process

    def test_worker_tells_its_outcome(self):
        ready = json.loads(self.worker().stdout.read().splitlines()[-1])
        self.assertEqual((ready["finished"], ready["manifest"]), (True, digest(self.image.manifest)))
        self.registry.hook = lambda request: request.error(403, "DENIED", "not you")
        failed = self.worker(image=f"{self.registry.host}/a/b:2")
        answer = json.loads(failed.stdout.read().splitlines()[-1])
        self.assertEqual((answer["finished"], answer["code"], failed.wait()), (True, 7, 1))  # PermissionDenied
        self.assertIn("403 Forbidden", answer["error"])

    def test_worker_takes_the_jobs_credentials_first(self):
        secret = base64.b64encode(b"me:pw").decode()
        self.registry.hook = lambda request: request.headers.get("Authorization") != f"Basic {secret}" and request.error(
            401, "UNAUTHORIZED", "who?", WWW_Authenticate='Basic realm="x"')
        wrong = self.auths(username="other", password="hunter2")[1]
        said = self.worker(auth_file=wrong).stdout.read()
        self.assertIn("401", said)
        self.assertNotIn("hunter2", said)
        said = self.worker(auth_file=wrong, credentials={"user": "me", "password": "pw"}).stdout.read()
        self.assertIn(digest(self.image.manifest), said)

    def test_worker_is_cancelled_by_its_callers_end(self):
        asked = threading.Event()

        def hang(request):
            if "/blobs/" not in request.path:
                return False
            request.send_response(200)
            request.send_header("Content-Length", "1000000")
            request.end_headers()
            request.wfile.flush()
            asked.set()
            request.rfile.read(1)  # until the other side is gone
            return True
        self.registry.hook = hang
        worker = self.worker()
        self.assertTrue(asked.wait(30))
        worker.stdin.close()
        self.assertEqual(worker.wait(), 1)
        self.assertEqual(self.leftovers(self.store), [])
        self.registry.hook = None
        self.pull(self.name, "--plain-http")

    def test_worker_that_is_killed_takes_its_child_along(self):
        gone = threading.Event()

        def hang(request):
            if "/blobs/" not in request.path:
                return False
            os.kill(worker.pid, signal.SIGKILL)
            request.rfile.read(1)
            gone.set()
            return True
        self.registry.hook = hang
        worker = self.worker()
        self.assertTrue(gone.wait(30))
        self.registry.hook = None
        self.pull(self.name, "--plain-http")
        self.assertEqual(self.leftovers(self.store), [])

    def killed_pull(self, point):
        """As by a power cut: the part that dies at the point takes its parent along, which would clean up."""
        confined = []

        def stop_the_parent(_):
            self.registry.hook = None
            children = pathlib.Path(f"/proc/{pull.pid}/task/{pull.pid}/children").read_text().split()
            confined.append(os.pidfd_open(int(children[0])))
            os.kill(pull.pid, signal.SIGSTOP)
            asked.set()
            return False
        asked = threading.Event()
        self.registry.hook = stop_the_parent
        pull = self.start_images(point, "pull", "--plain-http", self.name)
        self.assertTrue(asked.wait(30))
        self.assertTrue(select.select(confined, [], [], 60)[0])  # it has ended
        os.close(confined[0])
        pull.kill()
        self.assertEqual(pull.wait(), -signal.SIGKILL)

    def start_images(self, point, *arguments):
        return subprocess.Popen([TOOLS, "images", "--store", self.store, *arguments], stdout=subprocess.DEVNULL,
                                env={"PATH": "/usr/bin:/bin", "HOME": str(self.dir), "JENKINS_AGENT_FAULT": point,
                                     "LSAN_OPTIONS": "detect_leaks=0"})

    def assert_whole(self):
        """What the store shows is there, and as it came."""
        for image in json.loads(self.images("verify", "--json"))["images"]:
            self.assertEqual(image["state"], "intact")
        for image in self.list():
            self.assertEqual(self.rootfs(image["manifest"]), self.tree)

    def assert_nothing_else(self):
        self.assertEqual(self.leftovers(self.store), [])
        self.assertEqual(list(self.store.glob("*/*.tmp")), [])
        wanted = {pathlib.Path(layer["path"]).name for image in self.list()
                  for layer in json.loads(self.images("inspect", image["manifest"]))["layers"]}
        self.assertEqual({path.name for path in (self.store / "layers").iterdir()}, wanted)

    @unittest.skipUnless(os.environ.get("FAULT_POINTS"), "release programs have no fault points")
    def test_10_killed_at_each_step_of_a_pull(self):
        self.pull(self.name, "--plain-http")
        self.tree = self.rootfs(self.name)
        self.images("rm", self.name)
        for point in ("image.pull.staged", "image.pull.unpacked", "image.pull.synced", "image.publish.layer_moved",
                      "image.publish.layers_moved", "file.replace.written", "image.publish.recorded"):
            with self.subTest(point):
                self.killed_pull(point)
                self.assert_whole()
                self.assertEqual(self.worker().wait(), 0)  # a task's: the operator's begins as it does
                self.assertEqual(len(self.list()), 1)
                self.assert_whole()
                self.assert_nothing_else()
                self.images("rm", self.name)

    @unittest.skipUnless(os.environ.get("FAULT_POINTS"), "release programs have no fault points")
    def test_10_killed_at_each_step_of_a_removal(self):
        self.pull(self.name, "--plain-http")
        self.tree = self.rootfs(self.name)
        for command in ("rm", self.name), ("gc", "--max-age", "1s", "--delay", "0s", "--keep-recent", "0"):
            for point in "image.remove.names_gone", "image.remove.record_gone", "image.remove.layers_discarded":
                with self.subTest(command=command[0], point=point):
                    for record in (self.store / "images").iterdir():
                        os.utime(record, (1, 1))  # used long ago
                    self.assertEqual(self.start_images(point, *command).wait(), -signal.SIGKILL)
                    self.assert_whole()
                    self.pull(self.name, "--plain-http")
                    self.assert_whole()
                    self.assert_nothing_else()

    def test_layouts(self):
        layout = self.dir / "layout"
        self.image.write_layout(layout)
        for name in f"oci:{layout}:x", f"oci:{layout}":
            self.assertEqual(self.pull(name)["manifest"], digest(self.image.manifest))
        self.assertIn("has no image 'y'", self.refused(f"oci:{layout}:y"))
        blob = layout / "blobs/sha256" / self.image.layers[0][7:]
        self.images("rm", f"oci:{layout}:x")
        blob.unlink()
        blob.symlink_to("/etc/passwd")
        self.assertIn("layer", self.refused(f"oci:{layout}:x"))

    def damage(self, how, path):
        """Changes one file of the store's as a disk or a hand would."""
        times = os.stat(path, follow_symlinks=False)
        how(path)
        if os.path.lexists(path):
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)

    def test_verify_names_what_is_damaged_and_the_next_pull_repairs_it(self):
        def flip(path):
            with open(path, "r+b") as file:
                file.seek(30000)
                byte = file.read(1)
                file.seek(30000)
                file.write(bytes([byte[0] ^ 1]))
        other = Image([self.image.blobs[self.image.layers[0]], sample_layers(seed=9)[1]])
        self.registry.put(other, "2")
        names = [self.name, f"{self.registry.host}/a/b:2"]
        intact = None
        for change in (flip, lambda p: os.truncate(p, 0), os.unlink, lambda p: os.chmod(p, 0o777),
                       lambda p: os.chown(p, 7, 7), lambda p: os.setxattr(p, "user.x", b"y"),
                       lambda p: os.link(p, p + "2"),
                       lambda p: os.setxattr(os.path.dirname(p), "trusted.overlay.opaque", b"y")):
            for name in names:
                self.pull(name, "--plain-http")
            verdict = json.loads(self.images("verify", "--json"))
            self.assertEqual([x["state"] for x in verdict["images"]], ["intact"] * 2)
            intact = intact or self.rootfs(self.name)
            self.assertEqual(self.rootfs(self.name), intact)
            layer = json.loads(self.images("inspect", self.name))["layers"][2]["path"]
            self.damage(change, os.path.join(layer, "opt/b"))
            for dry in ["--dry-run"], []:
                done = self.run_images("verify", "--json", *dry)
                self.assertEqual(done.returncode, 1, done.stdout)
                said = {x["manifest"]: x for x in json.loads(done.stdout)["images"]}
                self.assertEqual(said[digest(other.manifest)]["state"], "intact")
                self.assertEqual([x["state"] for x in said[digest(self.image.manifest)]["layers"]],
                                 ["intact", "intact", "damaged"])
                self.assertIn("1 layer is damaged", done.stderr)
            self.assertFalse(os.path.exists(layer))
            self.assertEqual(json.loads(self.images("verify", "--json", names[1]))["damaged_layers"], 0)

    def test_verify_sums_what_a_layer_writes_twice_as_it_is_at_the_end(self):
        """At the pull contents are summed as they are written, by inode; `verify` reads them."""
        blob = gzip.compress(tar(
            entry("a", data=b"first"), entry("z", tarfile.LNKTYPE, link="a"), entry("a", data=b"second"),
            entry("d/x", data=b"x" * 70000), entry("d", data=b"now a file"), entry("empty"), entry("e/f", data=b"f"),
            symlink("e", "d"), *[entry(f"many/{i}", data=b"%d" % i) for i in range(50)], entry("many", data=b"none")))
        self.registry.put(Image([blob]), "twice")
        self.pull(f"{self.registry.host}/a/b:twice", "--plain-http")
        self.assertEqual(json.loads(self.images("verify", "--json"))["images"][0]["state"], "intact")
        layer = pathlib.Path(json.loads(self.images("inspect", f"{self.registry.host}/a/b:twice"))["layers"][0]["path"])
        self.assertEqual((layer / "z").read_bytes(), b"first")
        self.damage(lambda p: p.write_bytes(b"First"), layer / "z")
        self.assertEqual(self.run_images("verify", "--dry-run").returncode, 1)

    def test_verify_leaves_what_a_task_runs_on(self):
        self.pull(self.name, "--plain-http")
        lease = {"task": "alloc/agent/1", "manifest": digest(self.image.manifest)}
        record = self.store / "leases" / (hashlib.sha256(b"alloc/agent/1").hexdigest() + ".json")
        record.write_text(json.dumps(lease))
        layer = json.loads(self.images("inspect", self.name))["layers"][0]["path"]
        os.unlink(layer + "/bin/sh")
        done = self.run_images("verify")
        self.assertIn("is used by the task alloc/agent/1", done.stderr)
        self.assertRegex(done.stdout, r"damaged .*a/b:1\n.*layers/.*: its files have the digest")
        self.assertTrue(os.path.exists(layer))
        record.unlink()
        self.assertIn("pull the images that had them again", self.run_images("verify").stderr)
        self.assertFalse(os.path.exists(layer))

    def test_verify_says_what_it_cannot_know(self):
        self.pull(self.name, "--plain-http")
        record = next((self.store / "images").iterdir())
        document = json.loads(record.read_text())
        for layer in document["layers"]:
            del layer["tree_digest"]
        record.write_text(json.dumps(document))
        self.assertRegex(self.images("verify"), "unknown")

    def test_commands_on_what_is_here(self):
        self.pull(self.name, "--plain-http")
        other = Image([*sample_layers()[:2], sample_layers(seed=5)[2]], env=["A=b"])
        self.registry.put(other, "2")
        second = f"{self.registry.host}/a/b:2"
        self.pull(second, "--plain-http")
        self.assertIn(self.name, self.images("ls"))
        self.assertEqual(json.loads(self.images("inspect", second))["env"], ["A=b"])
        self.assertEqual(json.loads(self.images("inspect", digest(other.manifest)[7:17]))["names"], [second])
        self.assertEqual(json.loads(self.images("pin", "--json", self.name)), {"name": self.name, "pinned": True})
        self.assertIn("is pinned", self.run_images("rm", self.name).stderr)
        everything = ["gc", "--json", "--delay", "0s", "--keep-recent", "0", "--max-size", "1"]
        planned = json.loads(self.images(*everything, "--dry-run"))
        self.assertEqual(len(self.list()), 2)
        done = json.loads(self.images(*everything))
        self.assertEqual(done["removed"], planned["removed"])
        self.assertEqual([x["names"] for x in done["removed"]], [[second]])
        self.assertEqual([x["names"] for x in self.list()], [[self.name]])
        self.assertIn("opt/b", self.rootfs(self.name))
        self.images("unpin", self.name)
        self.assertEqual([x["name"] for x in json.loads(self.images("rm", "--json", self.name))["removed"]], [self.name])
        self.assertEqual(os.listdir(self.store / "layers"), [])
        self.assertIn("is not in", self.run_images("rm", self.name).stderr)
        self.assertIn("low watermark (90)", self.run_images("gc", "--low", "90").stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
