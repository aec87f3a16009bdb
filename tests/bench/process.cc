#include "tests/bench/process.h"

#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::bench {
namespace {

// "Key:   123 kB" lines.
absl::StatusOr<std::map<std::string, double>> Keyed(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::map<std::string, double> values;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    double value;
    if (words.size() >= 2 && absl::SimpleAtod(words[1], &value)) {
      values[std::string(words[0])] = value;
    }
  }
  return values;
}

}  // namespace

ProcessMemory& ProcessMemory::operator+=(const ProcessMemory& other) {
  rss_kb += other.rss_kb;
  pss_kb += other.pss_kb;
  private_dirty_kb += other.private_dirty_kb;
  return *this;
}

absl::StatusOr<ProcessMemory> MemoryOf(pid_t pid) {
  ASSIGN_OR_RETURN(auto values, Keyed(absl::StrCat("/proc/", pid, "/smaps_rollup")));
  return ProcessMemory{values["Rss:"], values["Pss:"], values["Private_Dirty:"]};
}

absl::StatusOr<double> PeakRssKbOf(pid_t pid) {
  ASSIGN_OR_RETURN(auto values, Keyed(absl::StrCat("/proc/", pid, "/status")));
  return values["VmHWM:"];
}

absl::StatusOr<int> ThreadsOf(pid_t pid) {
  ASSIGN_OR_RETURN(auto values, Keyed(absl::StrCat("/proc/", pid, "/status")));
  return static_cast<int>(values["Threads:"]);
}

absl::StatusOr<double> CpuSecondsOf(pid_t pid) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(absl::StrCat("/proc/", pid, "/stat")));
  // proc(5): utime and stime are fields 14 and 15; the name (2) may contain blanks.
  const std::vector<std::string> fields = absl::StrSplit(text.substr(text.rfind(')') + 2), ' ');
  double user = 0;
  double system = 0;
  if (fields.size() < 13 || !absl::SimpleAtod(fields[11], &user) ||
      !absl::SimpleAtod(fields[12], &system)) {
    return absl::InternalError("/proc/PID/stat is not as proc(5) says");
  }
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double NowMs() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

size_t DescriptorsOf(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator found(absl::StrCat("/proc/", pid, "/fd"), error);
  return error ? 0 : static_cast<size_t>(std::distance(begin(found), end(found)));
}

}  // namespace jenkins_agent::bench
