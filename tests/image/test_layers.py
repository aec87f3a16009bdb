"""Layers, good and hostile, unpacked by the real code into real directories, as root.

Hostile ones are those of the list in the reference of the image store: whatever they name, nothing outside the
layer's directory changes. Good ones are compared, mounted by overlayfs, with what umoci makes of them.
"""
import base64
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
import unittest

PROGRAM = os.environ["UNPACK_LAYERS"]
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
SEED = int(os.environ.get("LAYER_SEED", "7"))
ROUNDS = int(os.environ.get("LAYER_ROUNDS", "12"))


def entry(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644, uid=0, gid=0, mtime=1000, pax=None, device=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, link, mode, uid, gid, mtime
    info.size, info.pax_headers = len(data), pax or {}
    info.devmajor, info.devminor = device
    return info, data


def directory(name, **more):
    return entry(name, tarfile.DIRTYPE, mode=more.pop("mode", 0o755), **more)


def symlink(name, target):
    return entry(name, tarfile.SYMTYPE, link=target)


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_header(name=b"x", size=b"00000000000\0", kind=b"0", mode=b"0000644\0", checksum=None):
    block = bytearray(512)
    block[0:len(name)] = name
    block[100:108], block[108:116], block[116:124] = mode, b"0000000\0", b"0000000\0"
    block[124:136], block[136:148], block[156:157] = size, b"00000000000\0", kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = checksum or b"%06o\0 " % sum(block)
    return bytes(block)


def pax_header(records):
    return (raw_header(b"pax", b"%011o\0" % len(records), b"x") + records +
            b"\0" * (-len(records) % 512))


END = b"\0" * 1024


def tree(root):
    """{path: what a task could see of it} of everything below root."""
    found = {}
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(base, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # a whiteout's name in a directory that is of one layer only
                continue
            what = [stat.filemode(info.st_mode), info.st_uid, info.st_gid, int(info.st_mtime)]
            if stat.S_ISREG(info.st_mode):
                what.append(hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest())
            elif stat.S_ISLNK(info.st_mode):
                what.append(os.readlink(path))
            elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                what.append(info.st_rdev)
            if not stat.S_ISLNK(info.st_mode):
                what.append(sorted((x, os.getxattr(path, x)) for x in os.listxattr(path)
                                   if not x.startswith("trusted.overlay.")))
            found[os.path.relpath(path, root)] = what
    return found


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Layers(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jenkins-agent-layers-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.out = self.dir / "out"
        self.out.mkdir()
        # What hostile layers aim at, beside and above the directory of the layer.
        self.canary = self.dir / "canary"
        self.canary.write_text("untouched")
        os.chmod(self.canary, 0o640)
        (self.out / "canary").write_text("untouched")
        self.before = self.outside()

    def outside(self):
        return [(str(p), p.lstat().st_mode, p.lstat().st_uid, p.lstat().st_nlink, p.read_bytes())
                for p in (self.canary, self.out / "canary", pathlib.Path("/etc/passwd"))]

    def unpack(self, *blobs):
        """Lines of unpack_layers; whatever happened, nothing outside has changed."""
        names = []
        for number, blob in enumerate(blobs):
            path = self.dir / f"blob{number}"
            path.write_bytes(blob)
            names.append(path)
        done = subprocess.run([PROGRAM, self.out, *names], stdout=subprocess.PIPE, text=True, check=False)
        self.assertIn(done.returncode, (0, 1), done.stdout)
        self.assertEqual(self.outside(), self.before)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir() if not p.name.startswith("blob")),
                         ["canary", "out"])
        return done.stdout.splitlines()

    def unpacked(self, *blobs):
        lines = self.unpack(*blobs)
        self.assertEqual(len(lines), len(blobs), lines)
        self.assertTrue(lines[-1].startswith("ok "), lines)
        return self.out / str(len(blobs) - 1)

    def refused(self, blob, why):
        lines = self.unpack(blob)
        self.assertIn(why, lines[-1])
        self.assertFalse(lines[-1].startswith("ok"), lines)
        return lines[-1]

    def mounted(self, count):
        """The layers' union, read-only."""
        merged = self.dir / "blob-merged"
        overlay(merged, self.dir / "blob-empty", [self.out / str(n) for n in range(count)])
        self.addCleanup(subprocess.run, ["umount", merged], check=True)
        return merged

    # Numbers are those of the reference's list of hostile layers.
    # What driver/tools/confine.cc leaves the unpacker.
    CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "mknod", "setfcap", "sys_admin")

    def test_each_capability_is_needed(self):
        blob = tar(directory("./"), directory("d", uid=7, gid=7, mode=0o2500), entry("d/f", uid=7, gid=8, mode=0o6755),
                   entry("d/.wh..wh..opq"), entry("disk", tarfile.BLKTYPE, device=(254, 0)),
                   entry("cap", pax={"SCHILY.xattr.security.capability":
                                     CAPABILITY.decode("utf-8", "surrogateescape")}))

        def unpack_with(*capabilities):
            for left in self.out.glob("[0-9]*"):
                shutil.rmtree(left)
            (self.dir / "blob").write_bytes(blob)
            bounding = ",".join(["-all", *(f"+{c}" for c in capabilities)])
            done = subprocess.run(["setpriv", "--bounding-set", bounding, "--inh-caps", bounding, PROGRAM, self.out,
                                   self.dir / "blob"], stdout=subprocess.PIPE, text=True, check=False)
            return done.stdout if done.returncode else tree(self.out / "0")
        self.assertEqual(unpack_with(*self.CAPABILITIES), unpack_with(*self.CAPABILITIES, "kill", "sys_ptrace"))
        complete = unpack_with(*self.CAPABILITIES)
        self.assertIn("cap", complete)
        for without in self.CAPABILITIES:
            with self.subTest(without=without):
                self.assertNotEqual(unpack_with(*(c for c in self.CAPABILITIES if c != without)), complete)

    def test_01_to_03_paths_stay_inside(self):
        root = self.unpacked(tar(entry("../../canary", data=b"1"), entry("/abs/path", data=b"2"),
                                 entry("a/../../b", data=b"3")))
        self.assertEqual((root / "canary").read_bytes(), b"1")
        self.assertEqual((root / "abs/path").read_bytes(), b"2")
        self.assertEqual((root / "b").read_bytes(), b"3")

    def test_04_and_05_links_lead_to_the_layers_own_root(self):
        root = self.unpacked(tar(symlink("d", "/"), entry("d/etc/passwd", data=b"mine"),
                                 symlink("e", "../../.."), entry("e/canary", data=b"x"),
                                 symlink("host", str(self.dir)), entry("host/canary", data=b"y")))
        self.assertEqual((root / "etc/passwd").read_bytes(), b"mine")
        self.assertEqual((root / "canary").read_bytes(), b"x")
        self.assertEqual((root / str(self.dir)[1:] / "canary").read_bytes(), b"y")

    def test_06_chains_are_followed_and_loops_refused(self):
        root = self.unpacked(tar(symlink("a", "b"), symlink("b", "c"), symlink("c", "/host"), entry("a/f", data=b"1")))
        self.assertEqual((root / "host/f").read_bytes(), b"1")
        shutil.rmtree(root)
        self.refused(tar(symlink("a", "b"), symlink("b", "a"), entry("a/f")), "too many links")

    def test_07_a_hard_link_never_names_a_file_of_the_host(self):
        for target in "/etc/passwd", "../../../../../../etc/passwd", str(self.canary), "../canary":
            self.refused(tar(entry("x", tarfile.LNKTYPE, link=target)), "not in this layer")
            shutil.rmtree(self.out / "0")

    def test_08_and_09_nothing_is_written_through_a_link(self):
        for kind in tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE:
            root = self.unpacked(tar(symlink("s", str(self.canary)), entry("h", tarfile.LNKTYPE, link="s"),
                                     entry("h", kind, mode=0o777, uid=5, gid=5)))
            self.assertTrue((root / "s").is_symlink())
            self.assertFalse((root / "h").is_symlink())
            self.assertEqual((root / "h").lstat().st_uid, 5)
            shutil.rmtree(root)

    def test_10_the_root_stays_a_directory(self):
        for name in ".", "/", "a/..":
            self.refused(tar(symlink(name, str(self.dir))), "must be a directory")
            shutil.rmtree(self.out / "0")

    def test_11_a_directory_replaces_a_link_to_one(self):
        root = self.unpacked(tar(symlink("d", "/etc"), directory("d", mode=0o700), entry("d/passwd", data=b"x")))
        self.assertTrue((root / "d").is_dir() and not (root / "d").is_symlink())
        self.assertFalse((root / "etc").exists())

    def test_12_a_link_of_a_lower_layer_is_not_followed(self):
        self.unpacked(tar(directory("real"), symlink("d", "real")), tar(entry("d/f", data=b"1")))
        self.assertEqual((self.out / "1/d/f").read_bytes(), b"1")
        self.assertEqual(list((self.out / "0/real").iterdir()), [])

    def test_13_invalid_whiteouts(self):
        for name in "a/.wh.", "a/.wh..", "a/.wh...", ".wh.x/f", "a/.wh.b/c/d":
            self.refused(tar(directory("a"), entry(name)), "invalid whiteout")
            shutil.rmtree(self.out / "0")

    def test_14_and_15_whiteouts_below_links(self):
        root = self.unpacked(tar(symlink("d", str(self.dir)), entry("d/.wh.canary"),
                                 symlink("o", str(self.dir)), entry("o/.wh..wh..opq"),
                                 entry("file", data=b"1"), entry("file/.wh..wh..opq")))
        inside = root / str(self.dir)[1:]
        self.assertEqual(os.getxattr(inside, "trusted.overlay.opaque"), b"y")
        self.assertEqual(list(inside.iterdir()), [])
        self.assertEqual(os.getxattr(root / "file", "trusted.overlay.opaque"), b"y")

    def test_16_a_whiteout_hides_lower_layers_only(self):
        below = tar(directory("."), entry("f", data=b"old"), entry("g", data=b"old"), directory("d"), entry("d/old"))
        root = self.unpacked(below, tar(entry(".wh.f"), entry("f", data=b"new"), entry("g", data=b"new"), entry(".wh.g"),
                                        directory("d"), entry("d/new"), entry(".wh.d")))
        self.assertEqual(((root / "f").read_bytes(), (root / "g").read_bytes()), (b"new", b"new"))
        self.assertEqual(sorted(os.listdir(self.mounted(2) / "d")), ["new"])

    def test_17_what_gives_orders_to_overlayfs_never_arrives(self):
        self.refused(tar(entry("x", tarfile.CHRTYPE)), "0:0")
        shutil.rmtree(self.out / "0")
        names = ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.x",
                 "user.overlay.opaque", "security.selinux", "security.ima"]
        root = self.unpacked(tar(directory("d", pax={f"SCHILY.xattr.{n}": "/etc" for n in names}),
                                 entry("f", pax={"SCHILY.xattr.user.kept": "1"})))
        self.assertEqual(os.listxattr(root / "d"), [])
        self.assertEqual(os.getxattr(root / "f", "user.kept"), b"1")

    def test_18_set_id_bits_and_capabilities_are_kept(self):
        # tarfile writes text only; bytes that are no UTF-8 come in bsdtar's spelling.
        pax = {"LIBARCHIVE.xattr.security.capability": base64.b64encode(CAPABILITY).decode().rstrip("=")}
        for value in pax["LIBARCHIVE.xattr.security.capability"], base64.b64encode(CAPABILITY).decode():
            root = self.unpacked(tar(entry("suid", mode=0o4755, uid=3, gid=4),
                                     entry("cap", pax={"LIBARCHIVE.xattr.security.capability": value})))
            info = (root / "suid").stat()
            self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid), (0o4755, 3, 4))
            self.assertEqual(os.getxattr(root / "cap", "security.capability"), CAPABILITY)
            shutil.rmtree(root)

    def test_19_devices_and_fifos_are_nodes(self):
        root = self.unpacked(tar(entry("null", tarfile.CHRTYPE, device=(1, 3), mode=0o666),
                                 entry("disk", tarfile.BLKTYPE, device=(254, 0), mode=0o660, gid=6),
                                 entry("pipe", tarfile.FIFOTYPE, mode=0o600)))
        self.assertEqual((root / "null").stat().st_rdev, os.makedev(1, 3))
        self.assertEqual(stat.filemode((root / "disk").stat().st_mode), "brw-rw----")
        self.assertTrue(stat.S_ISFIFO((root / "pipe").stat().st_mode))

    def test_20_odd_names(self):
        odd = ["new\nline", "caf\u00e9", "a" * 255, "deep/" * 500 + "x"]
        root = self.unpacked(tar(*[entry(n) for n in odd]))
        for name in odd[:3]:
            self.assertTrue((root / name).exists())
        bytes_kept = raw_header(b"\xff\xfe") + END
        shutil.rmtree(root)
        self.assertTrue(os.path.exists(os.fsencode(self.unpacked(bytes_kept)) + b"/\xff\xfe"))
        shutil.rmtree(self.out / "0")
        self.refused(tar(entry("a" * 256)), "File name too long")
        shutil.rmtree(self.out / "0")
        self.refused(tar(entry("deep/" * 1000)), "PAX path")

    def test_21_bombs(self):
        packed = gzip.compress(b"\0" * (200 << 20))
        self.assertIn("bomb", self.unpack(raw_gzip_bomb(packed))[-1])
        window = bytes.fromhex("28b52ffd00") + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
        shutil.rmtree(self.out / "0")
        self.refused(window, "zstd")

    def test_22_extension_headers_are_bounded(self):
        self.refused(pax_header(b"x" * (1 << 20) + b"y") + END, "too long or too many")
        shutil.rmtree(self.out / "0")
        big = {f"SCHILY.xattr.user.{n}": "v" * 30000 for n in range(3)}
        self.refused(tar(entry("f", pax=big)), "too many attributes")

    def test_23_damaged_headers(self):
        cases = [(raw_header(size=b"-0000000001\0"), "bad size"), (raw_header(size=b"9" * 12), "bad size"),
                 (raw_header(size=b"\x80" + b"\xff" * 11), "bad size"),
                 (raw_header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7), "bad size"),
                 (raw_header(size=b"\xff" * 12), "bad size"),
                 (raw_header(checksum=b"0000001\0"), "checksum"),
                 (raw_header(size=b"00000001000\0"), "cut off"), (raw_header()[:300], "cut off"),
                 (raw_header(mode=b"8888888\0"), "bad numbers"), (b"not a tar stream at all" * 50, "checksum"),
                 (raw_header(kind=b"Z"), "type 'Z'"), (raw_header(kind=b"S"), "type 'S'"),
                 (raw_header(b"long", b"00000001000\0", b"L") + b"a" * 512 + END, "missing")]
        for blob, why in cases:
            with self.subTest(why):
                self.refused(blob, why)
                shutil.rmtree(self.out / "0", ignore_errors=True)

    def test_24_damaged_pax_headers(self):
        for records in [b"99 path=x\n", b"5 path=x\n", b"0 path=x\n", b"-9 path=x\n", b"path=x\n", b"9 path=xy",
                        b"11 path=a\0b\n", b"12 linkpath=\0\n"[:12] + b"\n", b"7 =abc\n", b"8 path\nx\n",
                        b"20 GNU.sparse.map=0\n", b"10 size=-1\n", b"14 uid=9999999999999\n"]:
            with self.subTest(records):
                lines = self.unpack(pax_header(records) + raw_header() + END)
                self.assertFalse(lines[-1].startswith("ok"), lines)
                shutil.rmtree(self.out / "0", ignore_errors=True)
        self.refused(pax_header(b"9 mtime=\n") * 9 + raw_header() + END, "too long or too many")

    def test_25_sparse_files_are_refused(self):
        for pax in {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"GNU.sparse.size": "8" * 19}:
            self.assertIn("sparse", self.refused(tar(entry("x", pax=pax)), "not supported"))
            shutil.rmtree(self.out / "0")

    def test_26_directories_that_the_layer_does_not_name_look_as_below(self):
        base = tar(directory(".", mode=0o755), directory("tmp", mode=0o1777, mtime=5), directory("opt", uid=7, gid=8))
        self.unpacked(base, tar(entry("tmp/x", data=b"1"), entry("opt/app/bin")), tar(entry("tmp/y")))
        merged = self.mounted(3)
        self.assertEqual(stat.S_IMODE((merged / "tmp").stat().st_mode), 0o1777)
        self.assertEqual(((merged / "opt").stat().st_uid, (merged / "opt").stat().st_gid), (7, 8))
        self.assertEqual(stat.S_IMODE(merged.stat().st_mode), 0o755)

    def test_27_no_ghosts_whatever_the_order(self):
        base = tar(directory("d"), entry("d/a"), entry("d/b"), directory("d/sub"), entry("d/sub/c"))
        upper = [directory("d"), entry("d/.wh.a"), entry("d/.wh..wh..opq"), entry("d/.wh.b"), directory("d/sub"),
                 entry("d/sub/.wh.c"), entry("d/new")]
        for order in upper, upper[::-1]:
            self.unpacked(base, tar(*order))
            self.assertEqual(sorted(os.listdir(self.out / "1/d")), ["new", "sub"])
            self.assertEqual(os.listdir(self.out / "1/d/sub"), [])
            shutil.rmtree(self.out / "0")
            shutil.rmtree(self.out / "1")

    def test_attributes_arrive_exactly(self):
        root = self.unpacked(tar(directory("d", mode=0o2750, uid=1, gid=2, mtime=77),
                                 entry("d/f", data=b"x" * 300000, mode=0o640, uid=4000000000, gid=3, mtime=123.5,
                                       pax={"SCHILY.xattr.user.a": "b"}),
                                 entry("l" * 150, tarfile.LNKTYPE, link="d/f"),
                                 symlink("s", "t" * 300)))
        info = (root / "d/f").stat()
        self.assertEqual((info.st_uid, info.st_gid, info.st_mtime, info.st_nlink, info.st_size),
                         (4000000000, 3, 123.5, 2, 300000))
        self.assertEqual(((root / "d").stat().st_mtime, stat.S_IMODE((root / "d").stat().st_mode)), (77, 0o2750))
        self.assertEqual(os.readlink(root / "s"), "t" * 300)
        self.assertEqual(os.getxattr(root / ("l" * 150), "user.a"), b"b")

    def test_formats_of_other_writers(self):
        for form in tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT:
            out = io.BytesIO()
            name = "p" * 90 + "/" + "n" * 90 if form == tarfile.USTAR_FORMAT else "p" * 200
            with tarfile.open(fileobj=out, mode="w", format=form) as archive:
                info, data = entry(name, data=b"1")
                archive.addfile(info, io.BytesIO(data))
            self.assertEqual((self.unpacked(out.getvalue()) / name).read_bytes(), b"1")
            shutil.rmtree(self.out / "0")
        for flags in "--format=gnu", "--format=v7", "--format=posix":
            source = self.dir / "blob-source"
            (source / "d").mkdir(parents=True)
            (source / "d/f").write_text("x")
            blob = subprocess.run(["tar", "-C", source, flags, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
            self.assertEqual((self.unpacked(blob) / "d/f").read_text(), "x")
            shutil.rmtree(self.out / "0")
            shutil.rmtree(source)

    def test_the_last_of_two_entries_wins(self):
        root = self.unpacked(tar(directory("a"), entry("a/b/c"), entry("a", data=b"file"), directory("d", mtime=5),
                                 entry("d/kept"), directory("d", mode=0o700, mtime=6)))
        self.assertEqual((root / "a").read_bytes(), b"file")
        self.assertTrue((root / "d/kept").exists())
        self.assertEqual((root / "d").stat().st_mtime, 6)

    @unittest.skipUnless(shutil.which("umoci"), "needs umoci")
    def test_random_layers_look_as_under_umoci(self):
        seen = 0
        for seed in range(SEED, SEED + ROUNDS):
            with self.subTest(seed=seed), tempfile.TemporaryDirectory(prefix="jenkins-agent-layers-") as work:
                layers = random_layers(random.Random(seed))
                mine, theirs = tree_of_ours(pathlib.Path(work), layers), tree_of_umoci(pathlib.Path(work), layers)
                self.assertEqual(mine, theirs)
                seen += len(mine)
        self.assertGreater(seen, 10 * ROUNDS)


def overlay(merged, empty, layers):
    """Mounts directories, lowest first, as one."""
    merged.mkdir()
    empty.mkdir()
    lowers = ":".join(str(x) for x in [empty, *reversed(layers)])
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lowers}", merged], check=True)


def tree_of_ours(work, layers):
    blobs = []
    for number, layer in enumerate(layers):
        blobs.append(work / f"blob{number}")
        blobs[-1].write_bytes(layer)
    out = work / "out"
    out.mkdir()
    subprocess.run([PROGRAM, out, *blobs], stdout=subprocess.DEVNULL, check=True)
    overlay(work / "merged", work / "empty", [out / str(n) for n in range(len(layers))])
    try:
        return tree(work / "merged")
    finally:
        subprocess.run(["umount", work / "merged"], check=True)


def tree_of_umoci(work, layers):
    write_layout(work / "layout", layers)
    subprocess.run(["umoci", "unpack", "--image", f"{work}/layout:x", work / "bundle"], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)
    return tree(work / "bundle/rootfs")


def raw_gzip_bomb(packed):
    """A gzip stream whose tar header announces what its zeros hold."""
    header = raw_header(size=b"%011o\0" % (200 << 20))
    return gzip.compress(header) + packed


def random_layers(rng):
    names = ["a", "b", "c", "d", "e", "f"]
    known = {}  # path: what it is in the union of the layers so far

    def drop(path):
        for other in [p for p in known if p == path or p.startswith(path + "/")]:
            del known[other]

    layers = []
    for number in range(rng.randint(2, 4)):
        entries, here = [directory("./", mtime=50 + number)], {}
        for _ in range(rng.randint(20, 80)):
            parents = [""] + [p for p, what in here.items() if what == "dir"]
            parent = rng.choice(parents)
            path = f"{parent}/{rng.choice(names)}".lstrip("/")
            more = {"uid": rng.randint(0, 9), "gid": rng.randint(0, 9), "mtime": rng.randint(1, 10**9)}
            kind = rng.choice(["dir", "dir", "file", "file", "file", "link", "hard", "fifo", "device", "white", "opaque"])
            if kind == "opaque":
                if parent and not any(i.name == f"{parent}/.wh..wh..opq" for i, _ in entries):
                    entries.append(entry(f"{parent}/.wh..wh..opq"))
                continue
            if kind == "white":
                # Only what a layer below has and this one has not: others mean nothing.
                if path in known and path not in here and not any(p.startswith(path + "/") for p in here):
                    base, _, name = path.rpartition("/")
                    entries.append(entry(f"{base}/.wh.{name}".lstrip("/")))
                    here[path] = None
                continue
            if path in here:
                continue
            here[path] = "dir" if kind == "dir" else "other"
            mode = rng.choice([0o600, 0o644, 0o755, 0o4755, 0o2711, 0o1777])
            pax = {"SCHILY.xattr.user.x": str(rng.random())} if rng.random() < 0.2 else None
            files = [p for p, what in here.items() if what == "file"]
            if kind == "dir":
                entries.append(directory(path, pax=pax, **{**more, "mode": mode}))
            elif kind == "link":
                entries.append(entry(path, tarfile.SYMTYPE, link=rng.choice(["a", "/b", "../c", "nowhere"]), **more,
                                     mode=0o777))
            elif kind == "hard" and files:
                entries.append(entry(path, tarfile.LNKTYPE, link=rng.choice(files)))
            elif kind == "fifo":
                entries.append(entry(path, tarfile.FIFOTYPE, mode=mode, **more))
            elif kind == "device":
                entries.append(entry(path, tarfile.CHRTYPE, mode=mode, device=(1, 3), **more))
            else:
                entries.append(entry(path, data=rng.randbytes(rng.choice([0, 1, 511, 512, 513, 70000])), mode=mode, pax=pax,
                                     **more))
                here[path] = "file"
        for path, what in here.items():
            if what is None:
                drop(path)
            else:
                if what != "dir":
                    drop(path)
                known[path] = what
        blob = tar(*entries)
        layers.append(gzip.compress(blob) if rng.random() < 0.5 else blob)
    return layers


def write_layout(layout, layers):
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data, media_type, **more):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data),
                **more}

    def plain(blob):
        return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob

    config = add(json.dumps({
        "os": "linux", "architecture": "amd64", "config": {}, "history": [{} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain(b)).hexdigest() for b in layers]},
    }).encode(), "config.v1+json")
    described = [add(b, "layer.v1.tar" + ("+gzip" if b.startswith(b"\x1f\x8b") else "")) for b in layers]
    manifest = add(json.dumps({"schemaVersion": 2, "config": config, "layers": described}).encode(), "manifest.v1+json",
                   annotations={"org.opencontainers.image.ref.name": "x"})
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


if __name__ == "__main__":
    unittest.main(verbosity=2)
