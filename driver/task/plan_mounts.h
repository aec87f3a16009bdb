// What a job and Nomad add to a sandbox's file system: volumes, `mount` blocks, devices. Reads the
// host's device nodes, changes nothing.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "driver/task/plan.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Parents before what lies below them. Errors start with the option or Nomad's block.
absl::StatusOr<std::vector<pb::MountSpec>> PlanMounts(const PlanInput& input,
                                                      uint64_t tmp_size_bytes);

// The devices that Nomad assigned to the task, for the sandbox's own /dev; for a privileged task
// all of the host's.
absl::StatusOr<std::vector<pb::DeviceSpec>> PlanDevices(const PlanInput& input);

}  // namespace jenkins_agent
