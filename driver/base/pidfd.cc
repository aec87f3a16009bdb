#include "driver/base/pidfd.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {

absl::StatusOr<Fd> OpenPidfd(pid_t pid) {
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)));
  if (!pidfd) return ErrnoStatus(absl::StrCat("pidfd of ", pid));
  return pidfd;
}

absl::Status SignalPidfd(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0U) == 0 || errno == ESRCH) {
    return absl::OkStatus();
  }
  return ErrnoStatus(absl::StrCat("signal ", signal));
}

bool AwaitPidfd(int pidfd, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd end = {pidfd, POLLIN, 0};
    const int ready = ::poll(&end, 1, static_cast<int>(left > 0 ? left : 0));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

pid_t PidOfPidfd(int pidfd) {
  const auto text = ReadFile(absl::StrCat("/proc/self/fdinfo/", pidfd));
  if (!text.ok()) return 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    pid_t pid = 0;
    if (absl::ConsumePrefix(&line, "Pid:") && absl::SimpleAtoi(line, &pid)) {
      return pid > 0 ? pid : 0;
    }
  }
  return 0;
}

}  // namespace jenkins_agent
