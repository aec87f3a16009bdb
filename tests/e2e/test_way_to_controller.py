#!/usr/bin/env python3
"""A controller that cannot be asked: each cause is one line in an event."""
import http.server
import shutil
import ssl
import subprocess
import threading
import unittest

import cluster
from fixtures import module_nomad, module_scratch, run_program

NODE = "linux-1"
CONFIG = 'agent {\n url = "%s"\n name = "%s"\n}'


def setUpModule():
    global nomad, scratch
    scratch = module_scratch()
    nomad = module_nomad(scratch)


class Server:
    """Answers as no real controller would on demand."""

    def __init__(self, test, status, tls=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = b"<html>a page</html>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        test.addCleanup(self.server.server_close)
        test.addCleanup(self.server.shutdown)


class WayToControllerTest(unittest.TestCase):
    def says(self, job, url, text):
        allocation = run_program(self, nomad, job, CONFIG % (url, NODE), "service", memory=256,
                                 lines='env {\n JENKINS_SECRET = "%s"\n }' % ("0" * 64))
        event = nomad.wait_event(allocation, text, 30)
        self.assertNotIn("\n", event["DisplayMessage"])
        self.assertNotIn("html", event["DisplayMessage"])

    def test_http_503(self):
        url = Server(self, 503).url
        self.says("starting", url, f"waiting for the controller: {url}: 503 Service Unavailable")

    def test_unknown_host(self):
        self.says("unknown-host", "http://no-such-host.invalid:8080/",
                  "waiting for the controller: http://no-such-host.invalid:8080/: the host's name cannot be resolved")

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_certificate_that_nobody_trusts(self):
        pem = scratch.path / "server.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=c",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", f"{pem}.crt"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(pem, "ab") as file:
            file.write((scratch.path / "server.pem.crt").read_bytes())
        url = Server(self, 200, tls=pem).url
        self.says("untrusted", url, f"waiting for the controller: {url}: its certificate is not trusted "
                                    r"\(self.signed certificate.*\); set agent.ca_file")


if __name__ == "__main__":
    cluster.main()
