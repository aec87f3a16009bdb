#include "cgroups/kill.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cgroups/files.h"
#include "cgroups/freeze.h"
#include "cgroups/usage.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

using Clock = std::chrono::steady_clock;

// Descriptors held while waiting; the rest of a crowd is waited for in the next round.
constexpr size_t kMaxWaited = 64;
// A crowd that could not be frozen forks on: look again soon, whoever is stuck.
constexpr std::chrono::milliseconds kUnfrozenRound(100);

int RemainingMs(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

absl::Status RefuseSelf(const std::vector<pid_t>& members) {
  if (std::find(members.begin(), members.end(), ::getpid()) == members.end()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError("the process that is to end the others is inside itself");
}

absl::Status StillThere(const std::vector<pid_t>& members, std::chrono::milliseconds limit) {
  return absl::DeadlineExceededError(
      absl::StrCat(members.size(), " processes still there ", limit.count(), " ms after SIGKILL",
                   members.empty() ? "" : absl::StrCat(", the first is pid ", members.front())));
}

absl::StatusOr<std::vector<Fd>> OpenPidfds(const std::vector<pid_t>& members) {
  std::vector<Fd> pidfds;
  for (const pid_t pid : members) {
    if (pidfds.size() == kMaxWaited) break;
    Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));  // always CLOEXEC
    if (!pidfd && errno == ESRCH) continue;
    // With a few descriptors short the others are enough to wait on.
    if (!pidfd && pidfds.empty()) return ErrnoStatus("pidfd_open");
    if (!pidfd) break;
    pidfds.push_back(std::move(pidfd));
  }
  return pidfds;
}

void WaitUntilGone(const std::vector<Fd>& pidfds, Clock::time_point deadline) {
  for (const Fd& pidfd : pidfds) {
    pollfd waited = {.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    while (::poll(&waited, 1, RemainingMs(deadline)) < 0 && errno == EINTR) {
    }
  }
}

absl::Status KillRound(const std::string& freezer, const std::string& dir,
                       Clock::time_point deadline) {
  absl::Cleanup thaw = [&freezer] {
    // Best effort: when the directory is gone there is nothing to thaw.
    if (!freezer.empty()) ThawV1(freezer).IgnoreError();
  };
  const bool frozen = !freezer.empty() && FreezeV1(freezer);
  ASSIGN_OR_RETURN(const std::vector<pid_t> members, ReadMembers(dir));
  ASSIGN_OR_RETURN(const std::vector<Fd> pidfds, OpenPidfds(members));
  for (const pid_t pid : members) ::kill(pid, SIGKILL);
  std::move(thaw).Invoke();
  WaitUntilGone(pidfds, frozen ? deadline : std::min(deadline, Clock::now() + kUnfrozenRound));
  return absl::OkStatus();
}

}  // namespace

absl::Status KillAllV1(const std::string& freezer, const std::string& dir,
                       std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  for (bool first = true;; first = false) {
    ASSIGN_OR_RETURN(const std::vector<pid_t> members, ReadMembers(dir));
    if (members.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(RefuseSelf(members));
    if (!first && Clock::now() >= deadline) return StillThere(members, limit);
    RETURN_IF_ERROR(KillRound(freezer, dir, deadline));
  }
}

absl::Status KillAllV2(const std::string& dir, std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  absl::StatusOr<Fd> events = OpenFile(dir + "/cgroup.events", O_RDONLY);
  if (absl::IsNotFound(events.status())) return absl::OkStatus();  // the directory is gone
  RETURN_IF_ERROR(events.status());
  ASSIGN_OR_RETURN(std::vector<pid_t> members, ReadMembers(dir));
  RETURN_IF_ERROR(RefuseSelf(members));

  for (bool killed = false;;) {
    char text[256];
    const ssize_t size = ::pread(events->get(), text, sizeof(text), 0);  // arms the next POLLPRI
    if (size < 0 && errno == ENODEV) return absl::OkStatus();
    if (size < 0) return ErrnoStatus("cgroup.events");
    if (ParseKeyed(absl::string_view(text, size), "populated") == 0u) return absl::OkStatus();
    if (!killed) RETURN_IF_ERROR(WriteFileIn(dir, "cgroup.kill", "1"));
    killed = true;

    pollfd waited = {.fd = events->get(), .events = POLLPRI, .revents = 0};
    const int ready = ::poll(&waited, 1, RemainingMs(deadline));
    if (ready < 0 && errno != EINTR) return ErrnoStatus("poll cgroup.events");
    if (ready == 0) {
      ASSIGN_OR_RETURN(members, ReadMembers(dir));
      return StillThere(members, limit);
    }
  }
}

absl::StatusOr<std::vector<pid_t>> KillChosen(const std::string& dir,
                                              absl::FunctionRef<bool(pid_t)> doomed) {
  ASSIGN_OR_RETURN(std::vector<pid_t> members, ReadMembers(dir));
  RETURN_IF_ERROR(RefuseSelf(members));
  std::erase_if(members, [doomed](pid_t pid) { return !doomed(pid); });
  for (const pid_t pid : members) ::kill(pid, SIGKILL);  // frozen: its number is still its own
  return members;
}

absl::Status AwaitGone(const std::string& dir, std::vector<pid_t> pids,
                       std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  for (;;) {
    ASSIGN_OR_RETURN(const std::vector<pid_t> members, ReadMembers(dir));
    std::erase_if(pids, [&](pid_t pid) {
      return std::find(members.begin(), members.end(), pid) == members.end();
    });
    if (pids.empty()) return absl::OkStatus();
    if (Clock::now() >= deadline) return StillThere(pids, limit);
    ASSIGN_OR_RETURN(const std::vector<Fd> pidfds, OpenPidfds(pids));
    WaitUntilGone(pidfds, deadline);
  }
}

}  // namespace jenkins_agent::cgroups
