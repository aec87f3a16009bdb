#include "driver/task/host_limits.h"

#include <sys/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include "driver/base/file.h"

namespace jenkins_agent {
namespace {

std::map<int, uint64_t> HardLimits() {
  std::map<int, uint64_t> limits;
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit;
    if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) == 0) {
      limits[resource] = limit.rlim_max;
    }
  }
  return limits;
}

uint64_t MemoryBytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? static_cast<uint64_t>(pages) * page_bytes : 0;
}

std::set<uint32_t> Capabilities() {
  std::set<uint32_t> held;
  const cap_t own = cap_get_proc();
  if (own == nullptr) return held;
  for (cap_value_t number = 0; number < cap_max_bits(); ++number) {
    cap_flag_value_t value = CAP_CLEAR;
    if (cap_get_flag(own, number, CAP_PERMITTED, &value) == 0 && value == CAP_SET) {
      held.insert(static_cast<uint32_t>(number));
    }
  }
  cap_free(own);
  return held;
}

}  // namespace

HostLimits ReadHostLimits() {
  HostLimits limits;
  limits.hard_limits = HardLimits();
  limits.memory_bytes = MemoryBytes();
  limits.capabilities = Capabilities();
  limits.resolv_conf = ReadFile("/etc/resolv.conf").value_or("");
  return limits;
}

}  // namespace jenkins_agent
