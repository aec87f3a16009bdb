#include "driver/base/nobody.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

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

absl::Status LoadFilter(const std::string& filter) {
  if (filter.empty() || filter.size() % sizeof(sock_filter) != 0 ||
      filter.size() / sizeof(sock_filter) > BPF_MAXINSNS) {
    return absl::InternalError("the system call filter is missing or damaged");
  }
  // Protobuf strings have no alignment to speak of, the kernel copies anyway.
  std::vector<sock_filter> instructions(filter.size() / sizeof(sock_filter));
  filter.copy(reinterpret_cast<char*>(instructions.data()), filter.size());
  const sock_fprog program = {.len = static_cast<unsigned short>(instructions.size()),
                              .filter = instructions.data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
    return ErrnoStatus("load the system call filter");
  }
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
