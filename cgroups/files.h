// Files and directories of a cgroup file system.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent::cgroups {

// One write(2), as the kernel wants it: 0 or the errno. The file must exist.
int WriteValue(const std::string& dir, absl::string_view file, absl::string_view value);
// The same as a status: "memory.limit_in_bytes: Invalid argument".
absl::Status WriteFileIn(const std::string& dir, absl::string_view file, absl::string_view value);
// The content without blanks around it; the message names the file only.
absl::StatusOr<std::string> ReadFileIn(const std::string& dir, absl::string_view file);

// Processes in `dir` (cgroup.procs). A directory that is gone has none.
absl::StatusOr<std::vector<pid_t>> ReadMembers(const std::string& dir);

// mkdir -p of `dir` below the existing directory `floor`; what was missing is added to `made`.
// Other tasks may remove parents that have become empty at the same time.
absl::Status MakeDirsBelow(const std::string& floor, const std::string& dir,
                           std::vector<std::string>* made);
// rmdir; a directory that is gone is fine. FailedPrecondition while processes are inside.
absl::Status RemoveDir(const std::string& dir);

}  // namespace jenkins_agent::cgroups
