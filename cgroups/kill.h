// Ends every process in a cgroup. Blocks until they are gone, at most `limit`.
//
// The caller must not be inside. DeadlineExceeded names what is left; waiting is done on pidfds and
// cgroup.events, so nobody is polled. A process that the caller forked stays a zombie until the
// caller reaps it; the kernel no longer counts it here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

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

// Ends the processes that `doomed` chooses, with SIGKILL, and leaves the others alone: they stand
// still while `doomed` looks at them, so that nothing can fork past it, and go on afterwards.
// Returns how many were chosen, once they are gone. `doomed` may read their /proc files. Should the
// caller die in the middle, the crowd stays frozen: see Thaw.
absl::StatusOr<size_t> KillChosenV1(const std::string& freezer, const std::string& dir,
                                    absl::FunctionRef<bool(pid_t)> doomed,
                                    std::chrono::milliseconds limit);
absl::StatusOr<size_t> KillChosenV2(const std::string& dir, absl::FunctionRef<bool(pid_t)> doomed,
                                    std::chrono::milliseconds limit);

// Best effort; nothing happens to a crowd that moves.
void ThawV1(const std::string& freezer);
void ThawV2(const std::string& dir);

}  // namespace jenkins_agent::cgroups
