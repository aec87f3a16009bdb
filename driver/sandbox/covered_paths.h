// Paths of /proc and /sys that a sandbox must not show, or not let change. Called by BuildRoot()
// once everything is mounted; paths that this kernel lacks are skipped.
#pragma once

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Covers spec.masked_paths: files by /dev/null, directories by an empty one.
absl::Status HidePaths(int root_fd, const pb::SandboxSpec& spec);

// Makes spec.read_only_paths read-only, with all below them.
absl::Status ProtectPaths(int root_fd, const pb::SandboxSpec& spec);

}  // namespace jenkins_agent
