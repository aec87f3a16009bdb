// /dev of a sandbox.
#pragma once

#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

// A detached tmpfs with null, zero, full, random, urandom and tty, the fd links, ptmx, and empty
// directories for pts, shm and mqueue; read-only when asked. Needs CAP_MKNOD and umask 0.
absl::StatusOr<Fd> MakeDeviceTree(bool read_only);

}  // namespace jenkins_agent
