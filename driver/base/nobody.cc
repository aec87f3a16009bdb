#include "driver/base/nobody.h"

#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr uid_t kNobody = 65534;
constexpr gid_t kNoGroup = 65534;

}  // namespace

absl::Status DropToNobody() {
  if (::geteuid() == 0) {
    if (::setgroups(0, nullptr) != 0) return ErrnoStatus("setgroups");
    if (::setresgid(kNoGroup, kNoGroup, kNoGroup) != 0) return ErrnoStatus("setresgid");
    // From uid 0 to another clears every capability set, capabilities(7).
    if (::setresuid(kNobody, kNobody, kNobody) != 0) return ErrnoStatus("setresuid");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus("PR_SET_NO_NEW_PRIVS");
  return absl::OkStatus();
}

absl::Status LowerLimit(int resource, uint64_t value) {
  rlimit limit = {};
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
    return ErrnoStatus("getrlimit");
  }
  value = std::min<rlim_t>(limit.rlim_max, value);
  limit = {value, value};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
    return ErrnoStatus("setrlimit");
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
