#include "driver/sandbox/capability_sets.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "driver/base/status.h"

namespace jenkins_agent {

absl::StatusOr<CapabilitySets> ReadCapabilities() {
  CapabilitySets sets;
  if (::syscall(SYS_capget, &sets.header, sets.data) != 0) {
    return ErrnoStatus("read the capabilities");
  }
  return sets;
}

absl::Status WriteCapabilities(CapabilitySets sets) {
  if (::syscall(SYS_capset, &sets.header, sets.data) != 0) {
    return ErrnoStatus("set the capabilities");
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
