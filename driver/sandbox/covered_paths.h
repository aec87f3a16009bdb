// Paths of /proc and /sys that a sandbox must not show, or not let change. Called once
// everything is mounted; paths that this kernel lacks are skipped.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

using Paths = google::protobuf::RepeatedPtrField<std::string>;

// Covers files by /dev/null (the root's own, which must be there), directories by an empty one.
absl::Status HidePaths(int root_fd, const Paths& paths);

// Makes paths read-only, with all below them.
absl::Status ProtectPaths(int root_fd, const Paths& paths);

}  // namespace jenkins_agent
