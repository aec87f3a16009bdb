// Whether the state directory can take what a task needs there.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace jenkins_agent {

// Records, socket and log of a task; its exit record has to fit hours later.
inline constexpr uint64_t kMinFreeBytes = 1 << 20;
inline constexpr uint64_t kMinFreeInodes = 16;

// ResourceExhausted and recoverable: Nomad's restart policy tries again, perhaps there is room
// then.
absl::Status CheckDiskSpace(const std::string& state_dir);

}  // namespace jenkins_agent
