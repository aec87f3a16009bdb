"""Registries on loopback: Debian's docker-registry, and one of our own that misbehaves as a test says."""
import crypt
import gzip
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time

OCI = "application/vnd.oci.image."
# Installed, or unpacked by scripts/setup.
PROGRAM = shutil.which("docker-registry") or str(
    pathlib.Path(__file__).resolve().parents[2] / ".cache/docker-registry/usr/bin/docker-registry")


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plain(blob):
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    return blob


class Image:
    """Documents and blobs of one image."""

    def __init__(self, layers, architecture="amd64", env=("PATH=/bin",), diff_ids=None):
        self.blobs, self.layers = {}, [digest(b) for b in layers]
        config = self.add(json.dumps({
            "os": "linux", "architecture": architecture, "config": {"Env": list(env)},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(plain(b)) for b in layers]}}).encode())
        self.config = config
        self.document = {
            "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
            "config": {"mediaType": OCI + "config.v1+json", **config},
            "layers": [{"mediaType": OCI + "layer.v1.tar+gzip", **self.add(b)} for b in layers]}

    def add(self, data):
        self.blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    @property
    def manifest(self):
        return json.dumps(self.document).encode()

    def write_layout(self, path, name="x"):
        blobs = pathlib.Path(path) / "blobs/sha256"
        blobs.mkdir(parents=True)
        for data in [*self.blobs.values(), self.manifest]:
            (blobs / digest(data)[7:]).write_bytes(data)
        entry = {"mediaType": OCI + "manifest.v1+json", "digest": digest(self.manifest), "size": len(self.manifest),
                 "annotations": {"org.opencontainers.image.ref.name": name}}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (path / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


class Fake:
    """Serves images; `hook(request)`, when set, may answer first: it returns whether it did."""

    def __init__(self, tls=None):
        self.manifests, self.blobs, self.requests, self.hook = {}, {}, [], None
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return True

            def error(self, status, code, message, **headers):
                return self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(),
                                   **headers)

            def do_POST(self):
                self.form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.do_GET()

            def do_GET(self):
                fake.requests.append((self.path, dict(self.headers)))
                self.close_connection = True
                try:
                    if not (fake.hook and fake.hook(self)):
                        self.serve()
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def serve(self):
                kind, name = self.path.partition("?")[0].split("/")[-2:]
                if kind == "manifests" and name in fake.manifests:
                    return self.answer(200, fake.manifests[name],
                                       Content_Type=json.loads(fake.manifests[name]).get("mediaType", ""))
                if kind == "blobs" and name in fake.blobs:
                    return self.send_blob(fake.blobs[name])
                return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown to this test")

            def send_blob(self, data):
                wanted = self.headers.get("Range")
                if not wanted:
                    return self.answer(200, data)
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                return self.answer(206, data[begin:], Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, image, tag="1"):
        self.blobs.update(image.blobs)
        self.manifests[tag] = self.manifests[digest(image.manifest)] = image.manifest

    def asked(self, kind):
        return [path for path, _ in self.requests if f"/{kind}/" in path]


def make_certificate(folder):
    """A PEM file with key and certificate of 127.0.0.1."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days",
                    "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                   stderr=subprocess.DEVNULL, check=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both, cert


class DockerRegistry:
    """Debian's docker-registry, with its log; `logins` = (user, password) of each that it lets in."""

    def __init__(self, folder, *logins):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        config = folder / "registry.yml"
        config.write_text("version: 0.1\nstorage:\n  filesystem:\n"
                          f"    rootdirectory: {folder}/registry\nhttp:\n  addr: {self.host}\n")
        if logins:
            salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)  # few: the registry hashes for each request
            (folder / "htpasswd").write_text("".join(
                f"{user}:{crypt.crypt(password, salt)}\n" for user, password in logins))
            with open(config, "a") as more:
                more.write(f"auth:\n  htpasswd:\n    realm: test\n    path: {folder}/htpasswd\n")
        self.log = folder / "registry.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([PROGRAM, "serve", config], stdout=log, stderr=log,
                                            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"})
        deadline = time.monotonic() + 30
        while b"listening on" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.02)

    def close(self):
        self.process.kill()
        self.process.wait()

    def push(self, layout, name, *options):
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", *options,
                        f"oci:{layout}:x", f"docker://{self.host}/{name}"], check=True)

    def blob_requests(self):
        return self.log.read_text().count('"GET /v2/') and sum(
            '"GET /v2/' in line and "/blobs/" in line for line in self.log.read_text().splitlines())
