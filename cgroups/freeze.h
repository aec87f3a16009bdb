// Stops and resumes every process in a cgroup.
#pragma once

#include <chrono>
#include <string>

#include "absl/status/status.h"

namespace jenkins_agent::cgroups {

// v1, `dir` in the freezer. One attempt: false when processes that fork keep it FREEZING; it is
// thawed again then.
bool FreezeV1(const std::string& dir);
// v2 (Linux 5.2). Blocks until everything stands. DeadlineExceeded: thawed again.
absl::Status FreezeV2(const std::string& dir, std::chrono::milliseconds limit);

// A directory that is gone has nothing to thaw.
absl::Status ThawV1(const std::string& dir);
absl::Status ThawV2(const std::string& dir);

}  // namespace jenkins_agent::cgroups
