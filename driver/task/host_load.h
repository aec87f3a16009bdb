// Whether this host can take one more task now: threads, memory, disk weights. Nomad schedules by
// what tasks ask for; this is about what others on the host have used up beside it. The errors are
// ResourceExhausted and recoverable: Nomad's restart policy tries again, perhaps there is room
// then.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent {

// An agent's JVM has about 30 threads when it has connected (jenkins-agent.md 3), a task's
// supervisor, pid 1 and worker are three more; as many again for the host to answer to a login.
inline constexpr uint64_t kThreadsOfAStart = 64;
// What an agent's JVM touches until it has connected; below it the host's OOM killer would choose
// somebody to make room. A task that may have less needs no more than that.
inline constexpr uint64_t kMemoryOfAStart = uint64_t{128} << 20;

struct HostLoad {
  uint64_t threads = 0;      // that exist, all users
  uint64_t max_threads = 0;  // the lower one of kernel.threads-max and kernel.pid_max
  uint64_t available_bytes = 0;
};

// From /proc/loadavg, sys/kernel/threads-max, sys/kernel/pid_max and meminfo (proc(5)).
absl::StatusOr<HostLoad> ReadHostLoad(const std::string& proc_root = "/proc");

// `memory_bytes`: the task's limit, 0 = none. Pure.
absl::Status CheckHostLoad(const HostLoad& load, int64_t memory_bytes);

// What a start says when the kernel refused it a process (EAGAIN of fork and clone, fork(2)):
// `failed` with the fullest pids cgroup that the calling process is in, or the host's threads where
// none has a limit; ResourceExhausted and recoverable. Any other error comes back as it is.
absl::Status TellProcessLimit(const absl::Status& failed);

// That a disk of this node heeds a weight: one with the I/O scheduler bfq, or v2's io.cost.
// FailedPrecondition, not recoverable.
absl::Status CheckIoWeight(const std::string& sys_root = "/sys");

}  // namespace jenkins_agent
