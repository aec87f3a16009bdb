"""Images that lie on this node: layouts, archives and plain root file systems (case 28), made by skopeo and by hand,
hostile ones too."""
import gzip
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import unittest

from registries import Image, digest, plain
from test_images import Images, sample_layers
from test_layers import CAPABILITY, END, directory, entry, symlink, tar, tree


def hardlink(name, target):
    return entry(name, tarfile.LNKTYPE, link=target)


def archive_of(files, *more):
    """A tar of {name: content}."""
    return tar(*(entry(name, data=data) for name, data in files.items()), *more)


def saved(*images):
    """What `docker save` writes of [(image, names, form)]. old: <id>/layer.tar, unpacked; new: blobs, packed as they are."""
    files, manifest = {}, []
    for image, names, form in images:
        layers = []
        for number, layer in enumerate(image.layers):
            name = f"{number}{layer[7:20]}/layer.tar" if form == "old" else f"blobs/sha256/{layer[7:]}"
            files[name] = plain(image.blobs[layer]) if form == "old" else image.blobs[layer]
            layers.append(name)
        config = image.config["digest"][7:]
        config = f"{config}.json" if form == "old" else f"blobs/sha256/{config}"
        files[config] = image.blobs[image.config["digest"]]
        manifest.append({"Config": config, "RepoTags": names, "Layers": layers})
    files["manifest.json"] = json.dumps(manifest).encode()
    return files


class Sources(Images):
    def setUp(self):
        super().setUp()
        self.image = Image(sample_layers())
        self.layout = self.dir / "layout"
        self.image.write_layout(self.layout)
        self.pull(f"oci:{self.layout}:x")
        self.wanted = self.rootfs(f"oci:{self.layout}:x")
        self.images("rm", f"oci:{self.layout}:x")
        self.file = self.dir / "archive.tar"

    def write(self, files, *more):
        self.file.write_bytes(archive_of(files, *more))

    def refusal(self, name):
        done = self.run_images("pull", name)
        self.assertEqual((done.returncode, self.leftovers(self.store)), (1, []), done.stdout)
        self.assertEqual(self.list(), [])
        return done.stderr

    def same_image(self, name):
        self.pull(name)
        self.assertEqual(self.rootfs(name), self.wanted)
        self.images("rm", name)

    @unittest.skipUnless(shutil.which("skopeo"), "needs skopeo")
    def test_28_archives_of_skopeo(self):
        for kind, part in ("oci-archive", "x"), ("docker-archive", "example.com/a/b:1"):
            with self.subTest(kind=kind):
                self.file.unlink(missing_ok=True)
                subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{self.layout}:x",
                                f"{kind}:{self.file}:{part}"], check=True)
                for name in f"{kind}:{self.file}", f"{kind}:{self.file}:{part}":
                    self.same_image(name)

    def test_28_archives_of_docker_before_and_after_25(self):
        for form in "old", "new":
            with self.subTest(form=form):
                self.write(saved((self.image, ["a:1"], form)))
                self.same_image(f"docker-archive:{self.file}")
                self.same_image(f"docker-archive:{self.file}:docker.io/library/a:1")

    def test_28_two_images_in_one_archive(self):
        other = Image(sample_layers(seed=2))
        self.write(saved((self.image, ["a:1", "b"], "old"), (other, ["example.com/c:2"], "old")))
        self.same_image(f"docker-archive:{self.file}:b:latest")
        name = f"docker-archive:{self.file}"
        self.assertIn("it has: a:1, b, example.com/c:2", self.refusal(name))
        self.assertIn("has no image 'd'", self.refusal(name + ":d"))
        self.pull(name + ":example.com/c:2")
        self.assertEqual([x["names"] for x in self.list()], [[name + ":example.com/c:2"]])

    def test_layers_of_an_archive_are_shared_with_those_of_a_registry(self):
        self.pull(f"oci:{self.layout}:x")
        self.write(saved((self.image, ["a:1"], "old")))
        self.assertEqual(self.pull(f"docker-archive:{self.file}")["cached_layers"], 3)

    def test_links_in_an_archive_stay_in_it(self):
        files = saved((self.image, ["a:1"], "old"))
        first = next(iter(files))
        content = files.pop(first)
        self.write({**files, "real": content}, symlink(first, "../real"))
        self.same_image(f"docker-archive:{self.file}")
        self.write({**files, "real": content}, hardlink(first, "real"))
        self.same_image(f"docker-archive:{self.file}")
        for target in "/etc/shadow", "../../../etc/shadow", first:
            self.write(files, symlink(first, target))
            self.assertIn("has no file", self.refusal(f"docker-archive:{self.file}"))

    def test_names_in_an_archive_are_those_of_its_own_index(self):
        files = saved((self.image, ["a:1"], "old"))
        for key, bad in ("Config", "../../../etc/passwd"), ("Layers", ["/etc/shadow"] * 3), ("Layers", [""] * 3):
            manifest = json.loads(files["manifest.json"])
            manifest[0][key] = bad
            self.write({**files, "manifest.json": json.dumps(manifest).encode()})
            self.assertIn("has no file", self.refusal(f"docker-archive:{self.file}"))

    def test_archives_that_lie(self):
        files = saved((self.image, ["a:1"], "old"))
        manifest = json.loads(files["manifest.json"])
        layer = manifest[0]["Layers"][1]
        name = f"docker-archive:{self.file}"
        self.write({**files, layer: files[layer][:-1] + b"x"})
        self.assertIn("has the digest", self.refusal(name))
        self.write({**files, layer: gzip.compress(files[layer] + b"x")})
        self.assertIn("unpacks to has the digest", self.refusal(name))
        del manifest[0]["Layers"][1]
        self.write({**files, "manifest.json": json.dumps(manifest).encode()})
        self.assertIn("names 3 layers, its manifest.json 2", self.refusal(name))
        for text in b"{}", b"[1]", b"[", b"[]", b"", b'[{"Layers":[]}]', b"[" * 100:
            self.write({**files, "manifest.json": text})
            self.refusal(name)
        self.write({n: d for n, d in files.items() if n != "manifest.json"})
        self.assertIn("has no file 'manifest.json'", self.refusal(name))

    def test_archives_that_are_none(self):
        packed = archive_of(saved((self.image, ["a:1"], "old")))
        name = f"docker-archive:{self.file}"
        self.file.write_bytes(gzip.compress(packed))
        self.assertIn("is compressed as a whole: unpack it first (gunzip)", self.refusal(name))
        self.file.write_bytes(packed[:len(packed) // 2])
        self.refusal(name)
        self.file.write_bytes(os.urandom(5000))
        self.refusal(name)
        self.file.write_bytes(archive_of({f"f{n}": b"" for n in range(17000)}))
        self.assertIn("more than 16384 entries", self.refusal(name))
        self.file.unlink()
        self.assertIn("No such file", self.refusal(name))
        os.mkfifo(self.file)
        self.assertIn("no regular file", self.refusal(name))

    def test_layout_archives_that_lie(self):
        files = {str(p.relative_to(self.layout)): p.read_bytes() for p in self.layout.rglob("*") if p.is_file()}
        self.write(files)
        self.same_image(f"oci-archive:{self.file}:x")
        blob = "blobs/sha256/" + self.image.layers[0][7:]
        self.write({**files, blob: files[blob][:-9] + b"123456789"})
        self.assertIn(f"layer {self.image.layers[0][7:19]}", self.refusal(f"oci-archive:{self.file}"))
        self.write({n: d for n, d in files.items() if n != blob}, symlink(blob, "/etc/shadow"))
        self.assertIn("has no file", self.refusal(f"oci-archive:{self.file}"))
        self.assertIn("has no image 'y'", self.refusal(f"oci-archive:{self.file}:y"))

    def root(self):
        """A tree with all that a root file system may hold."""
        root = self.dir / "root"
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin/tool").write_bytes(os.urandom(100000))
        os.setxattr(root / "usr/bin/tool", "security.capability", CAPABILITY)
        os.setxattr(root / "usr/bin/tool", "user.note", b"\xff=\n")
        os.link(root / "usr/bin/tool", root / "usr/bin/zool")
        (root / "empty").touch(mode=0o600)
        os.chown(root / "empty", 4000000000, 7)
        (root / "suid").write_bytes(b"x" * 512)
        os.chmod(root / "suid", 0o6755)
        (root / ("long" * 50)).mkdir(mode=0o1777)
        os.chmod(root / ("long" * 50), 0o1777)
        (root / ("long" * 50) / ("name" * 40)).write_text("deep")
        (root / "link").symlink_to("/usr/bin/" + "x" * 200)
        os.lchown(root / "link", 5, 6)
        os.mknod(root / "disk", 0o60640, os.makedev(254, 3))
        os.mkfifo(root / "fifo")
        (root / "n\nl \xe4").write_text("odd")
        os.utime(root / "usr", ns=(0, 1234567890123456789))
        return root

    def test_a_directory_as_image(self):
        root = self.root()
        wanted = tree(root)
        name = f"rootfs:{root}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "socket"))  # is left out
            first = self.pull(name)
        found = self.rootfs(name)
        self.assertEqual(found, wanted)
        self.assertEqual(len(found), 12)
        paths = [x["path"] for x in json.loads(self.images("inspect", name))["layers"]]
        tool = os.path.join(paths[0], "usr/bin/")
        self.assertEqual(os.stat(tool + "tool").st_ino, os.stat(tool + "zool").st_ino)
        self.assertEqual(os.stat(os.path.join(paths[0], "usr")).st_mtime_ns, 1234567890123456789)
        self.assertEqual(self.pull(name)["cached"], True)
        (root / "more").write_text("changed")
        changed = self.pull(name)
        self.assertEqual((changed["cached"], changed["manifest"] != first["manifest"]), (False, True))

    def test_a_tar_as_image(self):
        layer = tar(directory("./"), directory("bin"), entry("bin/sh", data=b"x" * 1000), symlink("lib", "usr/lib"))
        zstd = subprocess.run(["zstd", "-c"], input=layer, stdout=subprocess.PIPE, check=True).stdout
        for packed in layer, gzip.compress(layer), zstd:
            self.file.write_bytes(packed)
            name = f"rootfs:{self.file}"
            self.pull(name)
            self.assertEqual(set(self.rootfs(name)), {"bin", "bin/sh", "lib"})
            self.images("rm", name)

    def test_root_file_systems_that_are_refused(self):
        root = self.dir / "root"
        (root / "d").mkdir(parents=True)
        (root / "d/.wh.x").touch()
        self.assertIn("'d/.wh.x': has a name that in layers of images means a deletion", self.refusal(f"rootfs:{root}"))
        self.assertIn("holds the image store", self.refusal(f"rootfs:{self.dir}"))
        self.assertIn("holds the image store", self.refusal("rootfs:/"))
        self.assertIn("No such file", self.refusal(f"rootfs:{self.dir}/nothing"))
        self.file.write_bytes(b"x" * 5000 + END)
        self.refusal(f"rootfs:{self.file}")
        self.file.write_bytes(tar(entry("../../f", data=b"1")) + b"")
        self.pull(f"rootfs:{self.file}")
        self.assertEqual(set(self.rootfs(f"rootfs:{self.file}")), {"f"})

    def test_what_is_mounted_below_is_not_read(self):
        root = self.dir / "root"
        (root / "m").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "m"], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", root / "m"], check=True)
        (root / "m/secret").touch()
        self.pull(f"rootfs:{root}")
        self.assertEqual(set(self.rootfs(f"rootfs:{root}")), {"m"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
