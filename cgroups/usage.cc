#include "cgroups/usage.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr uint64_t kNsPerUs = 1000;

std::optional<uint64_t> Number(const FileReader& read, const char* controller, const char* file) {
  const std::optional<std::string> text = read(controller, file);
  return text.has_value() ? ParseNumber(*text) : std::nullopt;
}

std::optional<uint64_t> NsFromUs(std::optional<uint64_t> us) {
  if (!us.has_value()) return std::nullopt;
  return *us * kNsPerUs;
}

// "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345" in microseconds, and a second line "full".
std::optional<uint64_t> SomeTotal(const FileReader& read, const char* controller,
                                  const char* file) {
  const std::optional<std::string> text = read(controller, file);
  if (!text.has_value()) return std::nullopt;
  const absl::string_view some = absl::string_view(*text).substr(0, text->find('\n'));
  const size_t at = some.find("total=");
  if (!absl::StartsWith(some, "some ") || at == absl::string_view::npos) return std::nullopt;
  return NsFromUs(ParseNumber(some.substr(at + strlen("total="))));
}

}  // namespace

std::optional<uint64_t> ParseNumber(absl::string_view text) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &number)) return std::nullopt;
  return number;
}

std::optional<uint64_t> ParseKeyed(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    if (pair.first == key) return ParseNumber(pair.second);
  }
  return std::nullopt;
}

std::vector<pid_t> ParsePids(absl::string_view text) {
  std::vector<pid_t> pids;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    pid_t pid = 0;
    if (absl::SimpleAtoi(line, &pid) && pid > 0) pids.push_back(pid);
  }
  return pids;
}

std::optional<uint64_t> MemoryInUse(const Usage& usage) {
  if (!usage.memory_usage_bytes.has_value()) return std::nullopt;
  return *usage.memory_usage_bytes -
         std::min(*usage.memory_usage_bytes, usage.memory_idle_cache_bytes.value_or(0));
}

absl::string_view IdleCacheKey(bool v2) { return v2 ? "inactive_file" : "total_inactive_file"; }

Usage UsageFromV1(const FileReader& read) {
  Usage usage;
  usage.memory_usage_bytes = Number(read, "memory", "memory.usage_in_bytes");
  usage.memory_peak_bytes = Number(read, "memory", "memory.max_usage_in_bytes");
  usage.memory_kernel_bytes = Number(read, "memory", "memory.kmem.usage_in_bytes");
  if (const std::optional<std::string> stat = read("memory", "memory.stat"); stat.has_value()) {
    usage.memory_rss_bytes = ParseKeyed(*stat, "total_rss");
    usage.memory_cache_bytes = ParseKeyed(*stat, "total_cache");
    usage.memory_idle_cache_bytes = ParseKeyed(*stat, IdleCacheKey(false));
    usage.memory_swap_bytes = ParseKeyed(*stat, "total_swap");
  }
  usage.cpu_total_ns = Number(read, "cpuacct", "cpuacct.usage");
  usage.cpu_user_ns = Number(read, "cpuacct", "cpuacct.usage_user");
  usage.cpu_system_ns = Number(read, "cpuacct", "cpuacct.usage_sys");
  if (const std::optional<std::string> stat = read("cpu", "cpu.stat"); stat.has_value()) {
    usage.cpu_throttled_periods = ParseKeyed(*stat, "nr_throttled");
    usage.cpu_throttled_ns = ParseKeyed(*stat, "throttled_time");
  }
  usage.pids = Number(read, "pids", "pids.current");
  return usage;
}

Usage UsageFromV2(const FileReader& read) {
  Usage usage;
  usage.memory_usage_bytes = Number(read, "memory", "memory.current");
  usage.memory_peak_bytes = Number(read, "memory", "memory.peak");  // since Linux 5.19
  usage.memory_swap_bytes = Number(read, "memory", "memory.swap.current");
  if (const std::optional<std::string> stat = read("memory", "memory.stat"); stat.has_value()) {
    usage.memory_rss_bytes = ParseKeyed(*stat, "anon");
    usage.memory_cache_bytes = ParseKeyed(*stat, "file");
    usage.memory_idle_cache_bytes = ParseKeyed(*stat, IdleCacheKey(true));
    usage.memory_kernel_bytes = ParseKeyed(*stat, "kernel");  // since Linux 5.18
  }
  if (const std::optional<std::string> stat = read("cpu", "cpu.stat"); stat.has_value()) {
    usage.cpu_total_ns = NsFromUs(ParseKeyed(*stat, "usage_usec"));
    usage.cpu_user_ns = NsFromUs(ParseKeyed(*stat, "user_usec"));
    usage.cpu_system_ns = NsFromUs(ParseKeyed(*stat, "system_usec"));
    usage.cpu_throttled_periods = ParseKeyed(*stat, "nr_throttled");
    usage.cpu_throttled_ns = NsFromUs(ParseKeyed(*stat, "throttled_usec"));
  }
  usage.pids = Number(read, "pids", "pids.current");
  return usage;
}

// "No limit" is v1's largest number of pages (PAGE_COUNTER_MAX, include/linux/page_counter.h).
Ceiling CeilingFromV1(const FileReader& read) {
  constexpr uint64_t kUnlimited = uint64_t{1} << 62;
  Ceiling ceiling;
  ceiling.memory_bytes = Number(read, "memory", "memory.limit_in_bytes");
  if (ceiling.memory_bytes > kUnlimited) ceiling.memory_bytes.reset();
  ceiling.pids = Number(read, "pids", "pids.max");
  return ceiling;
}

// "max", which is no number, is no limit.
Ceiling CeilingFromV2(const FileReader& read) {
  return {.memory_bytes = Number(read, "memory", "memory.max"),
          .pids = Number(read, "pids", "pids.max")};
}

Stalls StallsFromV2(const FileReader& read) {
  return {.cpu_ns = SomeTotal(read, "cpu", "cpu.pressure"),
          .memory_ns = SomeTotal(read, "memory", "memory.pressure"),
          .io_ns = SomeTotal(read, "io", "io.pressure")};
}

}  // namespace jenkins_agent::cgroups
