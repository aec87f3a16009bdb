"""Seeds of the fuzz programs: what the real writers of those bytes write."""
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Golden vectors of Nomad's msgpack (hcl/v2, go-cty), in all shapes, and options of ours.
CONFIG = [
    "81a173c0", "81a173a26869", "81a16e00", "81a16eccff", "81a16ecd0100", "81a16ece00010000",
    "81a16ecf7fffffffffffffff", "81a16eff", "81a16ed2ffff7fff", "81a16ed3ffffffff7fffffff",
    "81a16ecb3ff8000000000000", "81a16ea3302e31", "81a162c3", "81a16c92a161a162", "81a16c90",
    "81a16c9182a161a162a16ba176", "81a16d82a161a132a17aa131", "81a16b82a178a161a179c0",
    "81a16b9282a178a161a179c082a178c0a17903", "81a16b82a2646282a178c0a17901a377656282a178a161a179c0",
]


def _str(text):
    data = text.encode()
    return bytes([0xD9, len(data)]) + data


def _map(**entries):
    return bytes([0x80 | len(entries)]) + b"".join(_str(k) + v for k, v in entries.items())


def _list(*values):
    return bytes([0x90 | len(values)]) + b"".join(values)


def config():
    yield from map(bytes.fromhex, CONFIG)
    yield _map(command=_str("/bin/sh"), args=_list(_str("-c"), _str("true")),
               work_dir=_str("/local"), pids_limit=b"\xcd\x08\x00")
    yield _map(jar_path=_str("/local/a.jar"), jvm_options=_list(_str("-Xmx1g")),
               java_version=_str("17"))
    yield _map(**{"class": _str("a.B"), "class_path": _str("/local"), "java_home": _str("/opt/jdk")})
    yield _map(agent=_map(url=_str("https://c.example:8443/x/"), name=_str("linux-1"),
                          secret_file=_str("/secrets/s"), tunnel=_str("h:50000"), web_socket=b"\xc3",
                          web_socket_headers=_list(_map(A=_str("b"))), direct=_str("[::1]:50000"),
                          instance_identity=_str("QUJD"), jar=_str("auto")))
    yield _map(state_dir=_str("/var/lib/x"), allow_root=b"\xc2", java_homes=_list(_str("/opt/jdk")))


def _encode(message, text, proto="supervisor.proto"):
    return subprocess.run(["protoc", f"--encode={message}", "-I", str(ROOT / "proto"), proto],
                          input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def record():
    name = hashlib.sha256(b"a/b/1").hexdigest()[:32]
    yield _encode("jenkins_agent.pb.TaskRecord", f'''version: 1 task_id: "a/b/1" boot_id: "boot"
        task_dir: "/state/tasks/{name}" supervisor_pid: 7
        cgroup_dirs: "/sys/fs/cgroup/pids/nomad/x" alloc_id: "a" task_name: "b"''')


def spec():
    yield b"\0" + _encode("hashicorp.nomad.plugins.drivers.proto.TaskConfig", '''id: "a/b/1" name: "b"
        alloc_id: "a" alloc_dir: "/x/a" stdout_path: "/dev/null" stderr_path: "/dev/null"
        env { key: "JENKINS_URL" value: "http://c/" } env { key: "JENKINS_SECRET" value: "00ff" }
        env { key: "JENKINS_AGENT_NAME" value: "n" } env { key: "JENKINS_TUNNEL" value: "h:1" }
        resources { allocated_resources { memory { memory_mb: 64 memory_max_mb: -1 } } }''',
                          "nomad_driver.proto")
    for version in 1, 2:
        yield b"\1" + _encode("jenkins_agent.pb.LaunchSpec", f'''version: {version} task_id: "a"
            program {{ argv: "/bin/true" env: "A=b" }}
            agent {{ urls: "http://c/" name: "n" secret: "00ff" root_dir: "/local/agent"
                     java_homes {{ path: "/usr" feature: 17 }} jvm_options: "-Xmx1g" }}''')


def phases():
    for piece in b"\x07", b"\xff":
        yield piece + ("Oct 01, 2026 1:02:03 AM hudson.remoting.jnlp.Main$CuiListener status\n"
                       "INFO: Locating server among [http://c/]\nINFO: Handshaking\nINFO: Connected\n"
                       "SEVERE: The server rejected the connection: No such slave: x\n"
                       "INFO: Terminated\n").encode()
    yield b"\xff\"-url\" is not a valid option\nException: http://c/login: java.net.ConnectException\n\xe9\n"


def control():
    def packet(text):
        data = _encode("jenkins_agent.pb.ControlRequest", text)
        return bytes([len(data)]) + data
    yield (packet("sequence: 1 hello { version: 1 watch: true }") +
           packet('sequence: 2 note { waiting_for: "x" }') +
           packet("sequence: 3 stop { signal: 15 timeout_ms: 5 }"))


def request():
    yield (b'{"urls":["http://c/"],"name":"n","web_socket":true,"network_namespace":"/run/netns/x",'
           b'"resolv_conf":"/x","cache_dir":"/c","file":"","root_pid":7,"ca_file":"/ca.pem"}')
    yield b'{"file":"/agent.jar","unknown":[1,2,{"a":null}]}'


def jar():
    class_file = b"\xca\xfe\xba\xbe\0\0\0\x34" + b"\x01\0\x07-secret" + b"\x01\0\x05-name"
    for method in zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED:
        for main in "hudson.remoting.jnlp.Main", "hudson.remoting.Launcher":
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", method) as archive:
                archive.writestr("META-INF/MANIFEST.MF",
                                 f"Manifest-Version: 1.0\r\nMain-Class: {main}\r\nVersion: 3.0.3\r\n")
                archive.writestr("hudson/remoting/jnlp/Main.class", class_file)
                archive.writestr("hudson/remoting/Launcher.class", class_file)
                archive.writestr("hudson/remoting/hudson-version.properties", "version=3.0.3\n")
                archive.writestr("META-INF/SIGNER.SF", "Signature-Version: 1.0\r\n")
            yield out.getvalue()


def image_documents():
    digest = "sha256:" + "0" * 64
    for name in "debian", "h.example:5000/a/b__c:1.0", f"[::1]:1/a@{digest}", "docker://a-b/c.d":
        yield b"\0" + name.encode()
    def described(kind, **more):
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": 7, **more}
    platforms = [{"os": "linux", "architecture": "arm64", "variant": "v8"},
                 {"os": "linux", "architecture": "amd64", "variant": "v2"}]
    documents = [
        {"schemaVersion": 2, "config": described("config.v1+json"),
         "layers": [described("layer.v1.tar+gzip"), described("layer.v1.tar+zstd")]},
        {"mediaType": "application/vnd.oci.image.index.v1+json",
         "manifests": [described("manifest.v1+json", platform=p,
                                 annotations={"org.opencontainers.image.ref.name": "x"})
                       for p in platforms]},
        {"schemaVersion": 1, "fsLayers": []}]
    for document in documents:
        yield b"\1" + json.dumps(document).encode()
    yield b"\2" + json.dumps({"os": "linux", "architecture": "amd64", "config": {
        "Env": ["A=b"], "Entrypoint": ["/x"], "Cmd": ["-y"], "User": "1:1", "WorkingDir": "/w"},
        "rootfs": {"type": "layers", "diff_ids": [digest]}}).encode()
    yield b"\3" + b'Bearer realm="https://a.example/token",service="x",scope="repository:a/b:pull", Basic realm=y'
    yield b"\3" + b'{"token":"abc","expires_in":300}'
    yield b"\4" + json.dumps({"finished": True, "layers": 5, "done_bytes": 7, "manifest": digest, "cached": True}).encode()
    yield b"\4" + json.dumps({"finished": True, "code": 14, "error": "no answer"}).encode()
    yield b"\4" + json.dumps({"store": "/s", "image": "a", "mirrors": ["https://m"], "sync": False,
                              "credentials": {"user": "u", "password": "p"}}).encode()
    yield b"\4docker-archive:/a/../b.tar:c:d"


def layer():
    for form in tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, kind in (("d/", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE), ("d/.wh.x", tarfile.REGTYPE),
                               ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("n" * 95 + "/" + "m" * 60, tarfile.REGTYPE),
                               ("c", tarfile.CHRTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.mtime = kind, "d/f", 5
                info.uid = 4000000000 if form != tarfile.USTAR_FORMAT else 7
                info.size = 600 if kind == tarfile.REGTYPE else 0
                info.pax_headers = {"SCHILY.xattr.user.x": "v", "mtime": "5.25"}
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        yield b"\xff" + out.getvalue()
        yield b"\x05" + gzip.compress(out.getvalue())
    zstd = subprocess.run(["zstd", "-c"], input=out.getvalue(), stdout=subprocess.PIPE, check=True).stdout
    yield b"\xff" + zstd


def docker_archive():
    diff_id = "sha256:" + hashlib.sha256(b"layer").hexdigest()
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    for path, tags in (("a/layer.tar", ["busybox:latest"]), ("../../etc/shadow", None), ("./a//b/../layer.tar", ["x:1", "y@z"])):
        entry = {"Config": "config.json", "RepoTags": tags, "Layers": [path]}
        manifest = json.dumps([entry, {**entry, "RepoTags": ["docker.io/library/busybox"]}]).encode()
        yield b"\2" + b"\n--\n".join((manifest, config, b"layer"))
        manifest = json.dumps([entry]).encode()
        yield b"\0" + b"\n--\n".join((manifest, config, gzip.compress(b"layer")))
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            link = tarfile.TarInfo("a/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, "../b/layer.tar"
            archive.addfile(link)
            for name, content in (("manifest.json", manifest), ("config.json", config), ("b/layer.tar", b"layer")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        yield b"\1" + out.getvalue()


ALL = {"config": config, "record": record, "spec": spec, "phases": phases, "control": control,
       "request": request, "jar": jar, "image_documents": image_documents,
       "layer": layer, "docker_archive": docker_archive}
