// Linux capabilities by name, and which of them a job gets. Pure; the only user of libcap.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline constexpr char kAllCapabilities[] = "all";

// Numbers of the kernel (linux/capability.h).
using CapabilitySet = std::set<uint32_t>;

// "net_admin", for messages.
std::string CapabilityName(uint32_t capability);

// Names as docker takes them: net_admin, NET_ADMIN, CAP_NET_ADMIN, and "all". Errors quote the name
// that is not known.
absl::StatusOr<CapabilitySet> ParseCapabilities(const std::vector<std::string>& names);

// What is left of `add` when `drop` has its say: of the names in both lists only "all" gives way,
// so { add all, drop x } is all but x and { add x, drop all } is x. Both name the same: error.
absl::StatusOr<CapabilitySet> WantedCapabilities(const std::vector<std::string>& add,
                                                 const std::vector<std::string>& drop);

}  // namespace jenkins_agent
