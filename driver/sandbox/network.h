// The sandbox's network: the host's, a namespace that Nomad made, or an empty one of its own.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Called by pid 1 before BuildRoot(): spec.network_namespace is a path of the host, and /sys shows
// the namespace in which it was mounted. In a namespace that is not the host's the loopback is
// brought up: Nomad leaves it down in network { mode = "none" }, and a JVM's build tools talk to
// localhost. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
absl::Status EnterNetwork(const pb::SandboxSpec& spec);

// "" = stay.
absl::Status JoinNetworkNamespace(const std::string& path);

}  // namespace jenkins_agent
