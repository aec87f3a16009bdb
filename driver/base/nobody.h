// How a process of ours that meets what is hostile gives up its rights.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace jenkins_agent {

// As root: becomes nobody, without groups and capabilities; as anybody else stays who it is.
// Nothing that it executes gains anything (PR_SET_NO_NEW_PRIVS). For a process with one thread.
absl::Status DropToNobody();

// setrlimit(2), soft and hard; never raises.
absl::Status LowerLimit(int resource, uint64_t value);

}  // namespace jenkins_agent
