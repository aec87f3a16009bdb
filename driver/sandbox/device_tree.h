// /dev of a sandbox.
#pragma once

#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// A detached tmpfs with null, zero, full, random, urandom and tty, the fd links, ptmx, empty
// directories for pts, shm and mqueue, and spec.devices; read-only when spec is. Needs CAP_MKNOD
// and umask 0. Owners of devices are translated by the task's user.
absl::StatusOr<Fd> MakeDeviceTree(const pb::MountSpec& spec, const pb::UserSpec& user);

}  // namespace jenkins_agent
