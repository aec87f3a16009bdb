// A user namespace for the task's program alone: pid 1 stays outside, so that the program, even as
// root of its namespace, has no rights over the sandbox's mounts, network and processes.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// The host's id for one of the sandbox: the same without a map. Ids that the map leaves out are
// nobody's and stay as they are.
uint32_t HostId(const pb::UserSpec& user, uint32_t id);

// A namespace with user.id_map that belongs to user.namespace_owner, which lives as long as the
// descriptor; empty when there is no map. Called by pid 1 while it has the host's /proc and
// CAP_SETUID, CAP_SETGID.
absl::StatusOr<Fd> MakeUserNamespace(const pb::UserSpec& user);

// In the launch child, which becomes the namespace's owner and so may enter it
// (user_namespaces(7)): needs CAP_SETUID. Afterwards the caller has every capability in it; -1:
// stays where it is.
absl::Status EnterUserNamespace(const pb::UserSpec& user, int user_namespace);

}  // namespace jenkins_agent
