// What this host can give at most, and what the plugin itself may do on it.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace jenkins_agent {

struct HostLimits {
  // RLIMIT_* -> the hard limit that a task inherits; RLIM_INFINITY: none. One that is not here is
  // not known.
  std::map<int, uint64_t> hard_limits;
  uint64_t memory_bytes = 0;        // 0: not known
  std::set<uint32_t> capabilities;  // CAP_* that the plugin holds: nobody can give others away
  std::string resolv_conf;          // content of the host's; empty: it has none
};

// Reads them anew: an operator may change limits and resolver at any time. What cannot be read is
// left out. Thread-safe.
HostLimits ReadHostLimits();

}  // namespace jenkins_agent
