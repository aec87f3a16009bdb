// The task's network as it sees it: namespace, host name, /etc/hosts, /etc/resolv.conf. Pure.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/task/plan.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// The namespace. InvalidArgument when the job's network_mode and Nomad's network block disagree.
absl::Status PlanNetwork(const PlanInput& input, pb::SandboxSpec& sandbox);

// Host name, hosts file and resolver.
absl::Status PlanNames(const PlanInput& input, HostRootfs& rootfs);

}  // namespace jenkins_agent
