// Ends every process in a cgroup. Blocks until they are gone, at most `limit`.
//
// The caller must not be inside. DeadlineExceeded names what is left; waiting is done on pidfds and
// cgroup.events, so nobody is polled. A process that the caller forked stays a zombie until the
// caller reaps it; the kernel no longer counts it here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent::cgroups {

// v1: freeze, SIGKILL each, thaw (a frozen process dies only when thawed), until nobody is left.
// `freezer` may be "": then without freezing. `dir` is where the processes are listed.
absl::Status KillAllV1(const std::string& freezer, const std::string& dir,
                       std::chrono::milliseconds limit);
// v2: cgroup.kill (Linux 5.14), with everything below `dir`.
absl::Status KillAllV2(const std::string& dir, std::chrono::milliseconds limit);

// SIGKILLs those members that `doomed` chooses and returns them. They should stand still
// (freeze.h): else one may fork past it. The caller must not be inside.
absl::StatusOr<std::vector<pid_t>> KillChosen(const std::string& dir,
                                              absl::FunctionRef<bool(pid_t)> doomed);
// Blocks until none of them is a member any more; a v1 task must be thawed for that.
absl::Status AwaitGone(const std::string& dir, std::vector<pid_t> pids,
                       std::chrono::milliseconds limit);

}  // namespace jenkins_agent::cgroups
