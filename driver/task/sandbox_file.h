// A small file of a task, named as the job sees it, read from the host's side.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace jenkins_agent {

inline constexpr size_t kMaxSandboxFile = 16 << 10;

// `path` lies in /secrets, /local or /alloc, the directories that Nomad fills before a start. The
// job can put symlinks there: the lookup stays inside the directory whatever they say (openat2(2),
// RESOLVE_IN_ROOT).
absl::StatusOr<std::string> ReadSandboxFile(const std::string& path, const std::string& alloc_dir,
                                            const std::string& task_name);

}  // namespace jenkins_agent
