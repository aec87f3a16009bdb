// JVM flags for agents: a small, predictable heap and few threads, because the builds need the rest
// of the task's memory. Figures: an agent with these flags needs 39 MiB PSS instead of 54. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace jenkins_agent {

inline constexpr int64_t kMinAgentHeapBytes = int64_t{64} << 20;
inline constexpr int64_t kMaxAgentHeapBytes = int64_t{256} << 20;

// The complete list in order: ours, then the user's. Ours are left out where the user has an
// opinion (another GC, -Xmx or MaxRAMPercentage, ...). `memory_bytes`: the task's limit, 0 = none.
std::vector<std::string> DefaultJvmOptions(int64_t memory_bytes,
                                           const std::vector<std::string>& user_options);

}  // namespace jenkins_agent
