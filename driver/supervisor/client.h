// The plugin's side of spawner and supervisors.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/base/mutex.h"
#include "driver/base/packet.h"
#include "driver/base/subprocess.h"
#include "driver/supervisor/exit_record.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// The resident spawner process. Owned by the plugin, ends with this object; the supervisors that it
// forked live on. Thread-safe.
class Spawner {
 public:
  // `program`: descriptor of the program `supervisor` (a sealed memfd, or a file in tests).
  static absl::StatusOr<std::unique_ptr<Spawner>> Start(Fd program);
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  // Starts a supervisor with this description and returns the control connection to it: first
  // AwaitStart(), then a Control (control.h). Starts the spawner anew when it has died.
  absl::StatusOr<Fd> Spawn(const pb::LaunchSpec& spec, int64_t received_monotonic_ns)
      ABSL_LOCKS_EXCLUDED(mutex_);

  pid_t pid() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  explicit Spawner(Fd program) : program_(std::move(program)) {}
  absl::Status StartProcess() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndProcess() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Fd program_;
  mutable Mutex mutex_;
  Subprocess process_ ABSL_GUARDED_BY(mutex_);
  Fd socket_ ABSL_GUARDED_BY(mutex_);
};

// Blocks until the supervisor has answered the start. The error is the one sentence for the
// operator: "exec /bin/nope: No such file or directory". Nothing is left of the task then.
absl::StatusOr<pb::TaskStatus> AwaitStart(int connection, std::chrono::milliseconds timeout);

// The state of a task that this plugin does not follow. Unavailable: as ConnectToSupervisor.
absl::StatusOr<pb::TaskStatus> AskSupervisor(const std::string& task_dir,
                                             std::chrono::milliseconds timeout);

// One request to the supervisors of many tasks at once, for one who has no event loop; the answers
// in the same order. Blocks for `timeout` at most for each kAskedAtOnce of them. An error is the
// supervisor's own, or Unavailable (as ConnectToSupervisor), or DeadlineExceeded: it runs, and does
// not answer.
inline constexpr size_t kAskedAtOnce = 256;
std::vector<absl::StatusOr<pb::ControlReply>> CallSupervisors(
    const std::vector<std::string>& task_dirs, const pb::ControlRequest& request,
    std::chrono::milliseconds timeout);

// Unavailable: no supervisor serves this task any more. ResourceExhausted: it accepts no connection
// within `limit`.
absl::StatusOr<Fd> ConnectToSupervisor(const std::string& task_dir,
                                       std::chrono::milliseconds limit = kConnectLimit);

}  // namespace jenkins_agent
