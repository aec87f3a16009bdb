#!/usr/bin/env python3
"""Registries for images_test.cc, on loopback: Debian's docker-registry with images of busybox that share a layer,
two of which are good, and one that never answers. Usage: image_registry.py DIRECTORY LOGIN:PASSWORD...

Says "HOST SILENT_HOST" on one line, and leaves its log in DIRECTORY/registry.log. A line on standard input ends the
first one, which is answered by a line; the end of standard input ends all.
"""
import gzip
import io
import json
import pathlib
import socket
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "image"))
import registries  # noqa: E402


def layer(files):
    """`files`: path -> content; a link's content is a Path."""
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755
            if isinstance(content, pathlib.Path):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(content)
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(blob.getvalue(), 1)


# Where the sandbox has its own, and what nobody should read as it is.
ODD = {"etc/resolv.conf": pathlib.Path("/alloc/resolv.conf"), "etc/hosts": pathlib.Path("../../../etc/shadow"),
       "tmp": b"no directory", "local": pathlib.Path("/proc"), "opt/tool": b"of the image", "etc/group": pathlib.Path("/dev/zero"),
       "etc/passwd": b":::::::\nci\n" + b"x" * 5000 + b"\nci:x:-1:99999999999::/\nci:x:1234:1234::relative:/bin/sh\n"}


def busybox():
    commands = ["sh", "cat", "id", "ls", "sleep", "touch", "env", "pwd"]
    return layer({"bin/busybox": pathlib.Path("/bin/busybox").read_bytes(),
                  "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nci:x:1234:1234::/local:/bin/sh\n",
                  **{f"bin/{name}": pathlib.Path("busybox") for name in commands}})


def image(layers, **config):
    made = registries.Image(layers)
    document = json.loads(made.blobs.pop(made.config["digest"]))
    document["config"].update(config)
    made.document["config"].update(made.add(json.dumps(document).encode()))
    return made


def main():
    folder, logins = pathlib.Path(sys.argv[1]), [tuple(login.split(":")) for login in sys.argv[2:]]
    base = busybox()
    images = {"ci/one:1": image([base, layer({"one": b"1"})], User="ci", WorkingDir="/tmp", Cmd=["/bin/sh", "-c", "id -un"]),
              "ci/two:1": image([base, layer({"two": b"2"})], User="ci"),
              "ci/ghost:1": image([base], User="ghost"),
              "ci/root:1": image([base], User="0"),
              "ci/empty:1": image([base], User="ci"),
              "ci/entry:1": image([base], User="ci", Entrypoint=["/missing", "-x"]),
              "ci/environment:1": image([base], User="ci", Cmd=["/bin/sh"], Env=["LARGE=" + "x" * (200 << 10)]),
              "ci/place:1": image([base], User="ci", WorkingDir="/not/there", Cmd=["/bin/sh"]),
              "ci/nokey:1": image([base], User="ci", Env=["no-equals"]),
              "ci/odd:1": image([base, layer(ODD)], User="ci:4711", WorkingDir="/tmp", Env=["A=b=c"])}
    registry = registries.DockerRegistry(folder, *logins)
    for number, (name, made) in enumerate(images.items()):
        layout = folder / f"layout{number}"
        layout.mkdir()
        made.write_layout(layout)
        registry.push(layout, name, "--dest-creds=" + sys.argv[2])
    pathlib.Path(folder / "pushed").write_text(str(registry.log.stat().st_size))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        print(registry.host, f"127.0.0.1:{silent.getsockname()[1]}", flush=True)
        for _ in sys.stdin:
            registry.close()
            print("stopped", flush=True)
    registry.close()


if __name__ == "__main__":
    main()
