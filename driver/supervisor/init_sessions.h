// Exec sessions in pid 1 of the sandbox: programs beside the payload, each the leader of a session
// of its own in the task's cgroups, with the task's user and filter.
//
// Bounded by the supervisor, who alone asks for sessions.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/supervisor/init_protocol.h"
#include "driver/supervisor/launch.h"

namespace jenkins_agent {

class InitSessions {
 public:
  using Report = std::function<void(InitReport)>;

  // `context` outlives this object.
  InitSessions(const LaunchContext& context, Report report)
      : context_(context), report_(std::move(report)) {}
  InitSessions(const InitSessions&) = delete;
  InitSessions& operator=(const InitSessions&) = delete;

  void Start(InitRequest request);
  void Kill(uint32_t session);
  void Release(uint32_t session);

  // What has to be waited for, and what to do when a wait has ended.
  void AddTo(std::vector<pollfd>* fds) const;
  void OnReadable(int fd);
  // A child of pid 1 has ended and was reaped.
  void OnReaped(pid_t pid, int wait_status);

 private:
  struct Session {
    pid_t leader = 0;
    Fd channel;  // from the child until its exec: descriptors, or an error
    std::vector<Fd> stdio;
    absl::Status error;
    bool ended = false;      // the leader has been reaped
    bool forgotten = false;  // the supervisor waits for nothing any more
  };

  absl::StatusOr<Session> StartLeader(InitRequest& request) const;
  void ReadChannel(uint32_t id);
  void FinishStart(uint32_t id);

  const LaunchContext& context_;
  const Report report_;
  std::map<uint32_t, Session> sessions_;
};

}  // namespace jenkins_agent
