// The calling thread's capability sets (capabilities(7), capset(2)).
#pragma once

#include <linux/capability.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent {

// Capability C is the bit CAP_TO_MASK(C) of data[CAP_TO_INDEX(C)].
struct CapabilitySets {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
};

absl::StatusOr<CapabilitySets> ReadCapabilities();
absl::Status WriteCapabilities(CapabilitySets sets);

}  // namespace jenkins_agent
