// Giving privileges up, for good. Called in the sandbox, single-threaded, after BuildRoot().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What an exec can gain, ambient or by file capabilities. BecomeInit sees to it too, which is cheap
// when the spawner has done it before. Needs CAP_SETPCAP. What the caller holds becomes
// inheritable: only from there a payload may still be given what spec.capabilities names
// (capabilities(7): nothing outside the bounding set can be added). None of ours ever execs.
absl::Status DropBoundingSet();

// pid 1 (uid 0): keeps the capabilities SETUID, SETGID and KILL to launch and end processes, in
// reserve those that the payload is to have (spec.capabilities), and nothing else that an exec
// could inherit; no_new_privs, not dumpable, umask 022, spec.init_filter.
absl::Status BecomeInit(const pb::SandboxSpec& spec);

// As BecomeInit for a payload without capabilities, but for the filter: a process on its way to be
// the payload, which will load the payload's.
absl::Status BecomeEntrant();

// The forked launch child, just before exec: limits (no core dumps), groups, ids, no capabilities
// but spec.capabilities (ambient, so that they survive exec), not dumpable, spec.payload_filter
// last. An empty filter is an error: forgetting one must not open the sandbox.
//
// Neither ever calls setfsuid: a change of the file system ids silently clears PDEATHSIG.
absl::Status BecomePayload(const pb::UserSpec& user, const pb::SandboxSpec& spec,
                           int user_namespace = -1);

// A worker of ours that reads what others wrote and stays uid 0: keeps `capabilities` and never
// gets others, an exec's included; no groups, no_new_privs, not dumpable, no core, umask 0, and
// `filter` last. May start threads afterwards.
absl::Status BecomeWorker(const std::vector<uint32_t>& capabilities, const std::string& filter);

}  // namespace jenkins_agent
