// The metrics listener: serves /metrics by HTTP, asks the plugin at each scrape, holds nothing.
//
// A process of its own because prometheus-cpp comes as shared libraries only, which a node need not
// have, and because a port that others reach is better not served by root: it becomes nobody before
// it listens, under a system call filter of its own. Ends when the plugin closes its end of the
// socket.
#pragma once

#include <string>

namespace jenkins_agent {

// `address`: "127.0.0.1:9465", "[::1]:9465". `plugin`: SEQPACKET socket, from which first comes
// ExporterFilter() (sandbox/seccomp.h), then messages of metrics.proto.
// Returns the exit code: 0 when the plugin is gone, 1 when it cannot listen, which the plugin was
// told.
int RunListener(const std::string& address, int plugin);

}  // namespace jenkins_agent
