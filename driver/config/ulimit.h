// Resource limits in docker's shape: ulimit { nofile = "1024:4096" }. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace jenkins_agent {

struct Ulimit {
  std::string name;  // docker's, such as nofile
  int resource;      // RLIMIT_*
  uint64_t soft;     // RLIM_INFINITY: none
  uint64_t hard;
};

// In the order of the names. Errors start with the limit's name.
absl::StatusOr<std::vector<Ulimit>> ParseUlimits(const std::map<std::string, std::string>& ulimits);

}  // namespace jenkins_agent
