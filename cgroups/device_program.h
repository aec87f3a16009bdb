// The device program of a v2 cgroup in the kernel (bpf(2)).
#pragma once

#include <linux/bpf.h>

#include <vector>

#include "absl/status/status.h"

namespace jenkins_agent::cgroups {

// Loads `program` and binds it to the cgroup, whose directory is `cgroup_fd`, for as long as that
// exists; programs of the cgroups above hold as well. Needs CAP_BPF and CAP_NET_ADMIN.
absl::Status AttachDeviceProgram(int cgroup_fd, const std::vector<bpf_insn>& program);
// Takes the device programs of this very cgroup away: an earlier task's. A kernel without such
// programs has none.
absl::Status DetachDevicePrograms(int cgroup_fd);

}  // namespace jenkins_agent::cgroups
