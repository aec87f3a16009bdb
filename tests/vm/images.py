"""The virtual machine's initramfs, disk and swap, made from this host's programs and Debian's cloud kernel."""
import glob
import os
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent

# What sandboxes share as the host's /usr, and what `init` needs: packages, with shell patterns.
PACKAGES = ["bash", "busybox-static", "coreutils", "dash", "findutils", "grep", "hostname", "iproute2", "libc-bin",
            "libc6", "login", "mount", "passwd", "perl-base", "sed", "util-linux", "python3*-minimal",
            "libpython3*-minimal"]
# No accounts' passwords: the machine gets a shadow of its own.
ETC = ["alternatives", "group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
       "nsswitch.conf", "os-release", "passwd", "protocols", "services"]
# In the order in which they need each other; what else is needed is in the kernel. The last ones are there to
# be refused to those who try to escape.
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "overlay", "bfq", "af_alg", "vsock", "fuse", "loop", "tun"]
DISK_BYTES = 1 << 30
SWAP_BYTES = 256 << 20


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def package_files():
    packages = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${binary:Package}\n", *PACKAGES)
    installed = [line.split()[1] for line in packages.splitlines() if line.startswith("installed ")]
    paths = [line for line in run("dpkg-query", "-L", *installed).splitlines()
             if line.startswith(("/usr/", "/bin/", "/sbin/", "/lib"))
             and not line.startswith(("/usr/share/", "/usr/include/"))]
    return [path for path in paths if os.path.isfile(path)]


def libraries_of(files):
    found = set()
    places = {line.split()[0]: line.split()[-1] for line in run("/sbin/ldconfig", "-p").splitlines() if " => " in line}
    programs = [path for path in files if os.access(path, os.X_OK) and is_elf(path)]
    while programs:
        wanted = set(re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", *programs)))
        programs = list({places[name] for name in wanted if name in places} - found)
        found.update(programs)
    return found


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def with_link_targets(files):
    """The paths without links among their directories, and what those that are links themselves lead to."""
    found = set()
    for path in files:
        found.add(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
        found.add(os.path.realpath(path))
    return sorted(path for path in found if os.path.exists(path))


def copy(files, tree):
    """With their directories, owners and permissions."""
    archive = tree.with_suffix(".tar")
    subprocess.run(["tar", "-C", "/", "--create", "--file", archive, "--null", "--files-from=-"], check=True,
                   input="\0".join(path.lstrip("/") for path in files).encode())
    run("tar", "-C", tree, "--extract", "--file", archive, "--preserve-permissions")
    archive.unlink()


def make_tree(tree, programs, started, program_seconds):
    files = [*package_files(), *programs, *started]
    files += libraries_of(files)
    files += [os.path.join("/etc", name) for name in ETC if os.path.exists(os.path.join("/etc", name))]
    copy(with_link_targets(files), tree)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), tree / name)
    for name in ("dev", "proc", "root", "run", "sys", "usr/local", "vm"):
        (tree / name).mkdir()
    (tree / "tmp").mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (tree / "etc/shadow").chmod(0o640)
    shutil.copy(HERE / "init", tree / "vm/init")
    (tree / "vm/init").chmod(0o755)
    (tree / "vm/programs").write_text("".join(f"{program}\n" for program in programs))
    (tree / "vm/program_seconds").write_text(f"{program_seconds}\n")


def make_initramfs(tree, kernel, image):
    for name in ("bin", "dev", "modules", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(HERE / "boot", tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for module in MODULES:
        file = glob.glob(f"{kernel}/lib/modules/*/kernel/**/{module}.ko", recursive=True)[0]
        shutil.copy(file, tree / "modules")
    (tree / "modules/order").write_text("".join(f"{module}.ko\n" for module in MODULES))
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    with open(image, "wb") as out:
        subprocess.run(["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"], check=True, cwd=tree,
                       input=names.encode(), stdout=out)


def make_images(directory, kernel, programs, started, program_seconds):
    """Makes initramfs, disk and swap in `directory`."""
    tree = directory / "tree"
    tree.mkdir()
    make_tree(tree, programs, started, program_seconds)
    for name, size in (("disk", DISK_BYTES), ("swap", SWAP_BYTES)):
        with open(directory / name, "wb") as file:
            file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard", "-d", tree, directory / "disk")
    run("mkswap", directory / "swap", stderr=subprocess.DEVNULL)
    make_initramfs(directory / "initramfs.d", kernel, directory / "initramfs")
