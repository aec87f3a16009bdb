// Ends every process in a cgroup. Blocks until they are gone, at most `limit`.
//
// The caller must not be inside. DeadlineExceeded names what is left; waiting is done on pidfds and
// cgroup.events, so nobody is polled. A process that the caller forked stays a zombie until the
// caller reaps it; the kernel no longer counts it here.
#pragma once

#include <chrono>
#include <string>

#include "absl/status/status.h"

namespace jenkins_agent::cgroups {

// v1: freeze, SIGKILL each, thaw (a frozen process dies only when thawed), until nobody is left.
// `freezer` may be "": then without freezing. `dir` is where the processes are listed.
absl::Status KillAllV1(const std::string& freezer, const std::string& dir,
                       std::chrono::milliseconds limit);
// v2: cgroup.kill (Linux 5.14), with everything below `dir`.
absl::Status KillAllV2(const std::string& dir, std::chrono::milliseconds limit);

}  // namespace jenkins_agent::cgroups
