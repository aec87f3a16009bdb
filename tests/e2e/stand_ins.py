"""An agent that does what no real one does on demand, and the controller's end of its connection."""
import socket
import threading


class Channels:
    """The controller's end of stand-in agents' connections: taken, and left alone until it is closed."""

    def __init__(self, test):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.taken = []
        threading.Thread(target=self._take, daemon=True).start()
        test.addCleanup(self.listener.close)

    def _take(self):
        try:
            while True:
                self.taken.append(self.listener.accept()[0])
        except OSError:
            pass


# Believes in its connection whatever becomes of it; its child does not hold it.
JAVA = """#!/bin/bash
trap 'echo Full thread dump of a stand-in' QUIT
exec 3<>/dev/tcp/127.0.0.1/%d
echo 'INFO: Connected' >&2
while :; do sleep 1000 3>&- & wait; kill $!; done
"""


def make_jdk(directory, port):
    """A Java installation whose `java` is a stand-in agent with a connection to `port`."""
    (directory / "bin").mkdir(parents=True)
    (directory / "release").write_text('JAVA_VERSION="17.0.1"\n')
    java = directory / "bin/java"
    java.write_text(JAVA % port)
    java.chmod(0o755)
    return directory
