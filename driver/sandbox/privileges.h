// Giving privileges up, for good. Called in the sandbox, single-threaded, after BuildRoot().
#pragma once

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What an exec can gain, ambient or by file capabilities. BecomeInit sees to it too, which is cheap
// when the spawner has done it before. Needs CAP_SETPCAP.
absl::Status DropBoundingSet();

// pid 1 (uid 0): keeps the capabilities SETUID, SETGID and KILL to launch and end processes, and
// nothing that an exec could inherit; no_new_privs, not dumpable, umask 022, spec.init_filter.
absl::Status BecomeInit(const pb::SandboxSpec& spec);

// The forked launch child, just before exec: limits (no core dumps), groups, ids, no capabilities,
// spec.payload_filter last. An empty filter is an error: forgetting one must not open the sandbox.
//
// Neither ever calls setfsuid: a change of the file system ids silently clears PDEATHSIG.
absl::Status BecomePayload(const pb::UserSpec& user, const pb::SandboxSpec& spec);

}  // namespace jenkins_agent
