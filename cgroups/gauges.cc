#include "cgroups/gauges.h"

#include <unistd.h>

#include <array>

#include "absl/strings/ascii.h"

namespace jenkins_agent::cgroups {
namespace {

// memory.stat, the longest, has some 2 KiB.
using Buffer = std::array<char, 8192>;

// From the beginning each time: the kernel writes the text anew then.
absl::string_view ReadAnew(const Fd& file, Buffer& buffer) {
  if (!file) return {};
  const ssize_t count = ::pread(file.get(), buffer.data(), buffer.size(), 0);
  return {buffer.data(), count > 0 ? static_cast<size_t>(count) : 0};
}

}  // namespace

Gauges::Reading Gauges::Read() const {
  const bool v2 = version_ == Version::kV2;
  Buffer buffer;
  Reading reading;
  reading.pids = ParseNumber(ReadAnew(files_.pids, buffer));
  Usage usage;
  usage.memory_usage_bytes = ParseNumber(ReadAnew(files_.memory, buffer));
  usage.memory_idle_cache_bytes =
      ParseKeyed(ReadAnew(files_.memory_stat, buffer), IdleCacheKey(v2));
  reading.memory_bytes = MemoryInUse(usage);
  const absl::string_view state = absl::StripAsciiWhitespace(ReadAnew(files_.freezer, buffer));
  reading.frozen = !state.empty() && state != (v2 ? "0" : "THAWED");
  return reading;
}

}  // namespace jenkins_agent::cgroups
