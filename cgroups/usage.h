// What a task has used and may use, and the parsers of the kernel files that say so. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent::cgroups {

// Empty: the kernel of this host does not tell.
struct Usage {
  std::optional<uint64_t> memory_usage_bytes;       // all that is charged
  std::optional<uint64_t> memory_rss_bytes;         // anonymous memory
  std::optional<uint64_t> memory_cache_bytes;       // page cache and tmpfs
  std::optional<uint64_t> memory_idle_cache_bytes;  // of the page cache, what goes first
  std::optional<uint64_t> memory_swap_bytes;
  std::optional<uint64_t> memory_peak_bytes;  // highest usage so far
  std::optional<uint64_t> memory_kernel_bytes;
  std::optional<uint64_t> cpu_total_ns;
  std::optional<uint64_t> cpu_user_ns;
  std::optional<uint64_t> cpu_system_ns;
  std::optional<uint64_t> cpu_throttled_periods;
  std::optional<uint64_t> cpu_throttled_ns;
  std::optional<uint64_t> pids;  // processes and threads
};

// Content of `file` in the task's directory of `controller`; empty when there is none.
using FileReader = std::function<std::optional<std::string>(const std::string& controller,
                                                            const std::string& file)>;
// Without the page cache that goes first: it stands in no one's way, and would make each build look
// like a leak.
std::optional<uint64_t> MemoryInUse(const Usage& usage);
Usage UsageFromV1(const FileReader& read);
Usage UsageFromV2(const FileReader& read);

// Where a task's use ends. Empty: no limit, or the kernel does not tell.
struct Ceiling {
  std::optional<uint64_t> memory_bytes;
  std::optional<uint64_t> pids;  // processes and threads
};
Ceiling CeilingFromV1(const FileReader& read);
Ceiling CeilingFromV2(const FileReader& read);

// How long some process of the task has stood still so far because the resource was short
// (Documentation/accounting/psi.rst, the total of the lines "some"). v2 only; empty: the kernel
// does not tell (before 4.20, or psi=0).
struct Stalls {
  std::optional<uint64_t> cpu_ns;
  std::optional<uint64_t> memory_ns;
  std::optional<uint64_t> io_ns;
};
Stalls StallsFromV2(const FileReader& read);

// The key of `memory_idle_cache_bytes` in memory.stat.
absl::string_view IdleCacheKey(bool v2);
// A file with one number.
std::optional<uint64_t> ParseNumber(absl::string_view text);
// The number behind `key` in lines of "key number".
std::optional<uint64_t> ParseKeyed(absl::string_view text, absl::string_view key);
// A file with one pid a line. Processes that this pid namespace does not show (0) are left out:
// kill(0) would hit the caller's own group.
std::vector<pid_t> ParsePids(absl::string_view text);

}  // namespace jenkins_agent::cgroups
