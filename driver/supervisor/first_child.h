// The process that the first launch will use. pid 1 makes it as soon as there are cgroups and goes
// on building the sandbox meanwhile.
//
// It is born in the task's cgroups, or joins them, and takes its cgroup namespace there. pid 1
// takes that over, so it never goes inside itself: a way in and out costs v1 a write for each
// controller, and v2 an RCU grace period. Nor does the payload move where the kernel refuses births
// from within that namespace (cgroups/cgroup.h, Fork). Then the child becomes the task's user and
// waits.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/supervisor/launch.h"

namespace jenkins_agent {

struct FirstChild {
  pid_t pid = 0;
  Fd pidfd;
  Fd channel;  // SEQPACKET
};

// pid 1 must have all of LaunchContext, the mount namespace and /proc and /dev of the sandbox.
absl::StatusOr<FirstChild> StartFirstChild(const LaunchContext& context);
// Blocks until the child has its namespace, or has failed to get there. Needs CAP_SYS_ADMIN.
absl::Status TakeCgroupNamespace(const FirstChild& child);
// `packed_program`: file with a serialized pb::ProgramSpec. Unavailable: the child has died;
// whatever it died of, another one can be forked.
absl::StatusOr<StartingPayload> LaunchFirst(FirstChild child, int packed_program);

}  // namespace jenkins_agent
