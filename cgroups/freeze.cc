#include "cgroups/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cgroups/files.h"
#include "cgroups/usage.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

// A freezer may stay FREEZING while forks race with it; runc thaws now and then, too.
constexpr int kFreezeRounds = 10;
constexpr int kStateReads = 50;

absl::Status Thaw(const std::string& dir, const char* file, const char* value) {
  const absl::Status written = WriteFileIn(dir, file, value);
  return absl::IsNotFound(written) ? absl::OkStatus() : written;
}

}  // namespace

bool FreezeV1(const std::string& dir) {
  for (int round = 0; round < kFreezeRounds; ++round) {
    if (WriteValue(dir, "freezer.state", "FROZEN") != 0) return false;
    for (int i = 0; i < kStateReads; ++i) {
      const absl::StatusOr<std::string> state = ReadFileIn(dir, "freezer.state");
      if (!state.ok()) return false;
      if (*state == "FROZEN") return true;
      ::sched_yield();
    }
    (void)WriteValue(dir, "freezer.state", "THAWED");  // a failure shows in the next round
  }
  return false;
}

absl::Status FreezeV2(const std::string& dir, std::chrono::milliseconds limit) {
  ASSIGN_OR_RETURN(const Fd events, OpenFile(dir + "/cgroup.events", O_RDONLY));
  const auto deadline = std::chrono::steady_clock::now() + limit;
  RETURN_IF_ERROR(WriteFileIn(dir, "cgroup.freeze", "1"));
  for (;;) {
    char text[256];
    const ssize_t size = ::pread(events.get(), text, sizeof(text), 0);  // arms the next POLLPRI
    if (size < 0) return ErrnoStatus("cgroup.events");
    if (ParseKeyed(absl::string_view(text, size), "frozen") == 1u) return absl::OkStatus();
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd waited = {.fd = events.get(), .events = POLLPRI, .revents = 0};
    const int ready =
        ::poll(&waited, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30)));
    if (ready < 0 && errno != EINTR) return ErrnoStatus("poll cgroup.events");
    if (ready == 0) {
      RETURN_IF_ERROR(ThawV2(dir));
      return absl::DeadlineExceededError(
          absl::StrCat("not frozen after ", limit.count(), " ms; thawed again"));
    }
  }
}

absl::Status ThawV1(const std::string& dir) { return Thaw(dir, "freezer.state", "THAWED"); }
absl::Status ThawV2(const std::string& dir) { return Thaw(dir, "cgroup.freeze", "0"); }

}  // namespace jenkins_agent::cgroups
