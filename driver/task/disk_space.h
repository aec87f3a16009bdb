// Whether a directory's disk can take what a task needs there.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

// State directory: records, socket and log of a task; its exit record has to fit hours later.
// Allocation directory: its program's first files; a full one would fail the agent in its own
// words.
inline constexpr uint64_t kMinFreeBytes = 1 << 20;
inline constexpr uint64_t kMinFreeInodes = 16;

// ResourceExhausted and recoverable: Nomad's restart policy tries again, perhaps there is room
// then.
// `what`: "state_dir", for the message.
absl::Status CheckDiskSpace(absl::string_view what, const std::string& directory);

}  // namespace jenkins_agent
