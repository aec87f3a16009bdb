// How a process of ours that meets what is hostile gives up its rights.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace jenkins_agent {

// As root: becomes nobody, without groups and capabilities; as anybody else stays who it is.
// Nothing that it executes gains anything (PR_SET_NO_NEW_PRIVS). For a process with one thread.
absl::Status DropToNobody();

// For the calling thread and those that it starts: `filter` is the bytes of a struct sock_filter[]
// (sandbox/seccomp.h makes them), after PR_SET_NO_NEW_PRIVS. An empty one is an error: forgetting
// it must not open what it closes.
absl::Status LoadFilter(const std::string& filter);

// setrlimit(2), soft and hard; never raises.
absl::Status LowerLimit(int resource, uint64_t value);

}  // namespace jenkins_agent
