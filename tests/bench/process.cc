#include "tests/bench/process.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::bench {
namespace {

namespace fs = std::filesystem;

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

size_t Entries(const std::string& directory) {
  std::error_code error;
  const fs::directory_iterator found(directory, error);
  return error ? 0 : static_cast<size_t>(std::distance(begin(found), end(found)));
}

// Directories below /sys/fs/cgroup whose name contains `mark`.
size_t Cgroups(const std::string& mark) {
  size_t count = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it("/sys/fs/cgroup", error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_directory(error) && absl::StrContains(it->path().filename().string(), mark)) ++count;
  }
  return count;
}

// The first child: the plugin starts its spawner before anything else.
pid_t ChildOf(pid_t pid) {
  const auto children = ReadFile(absl::StrCat("/proc/", pid, "/task/", pid, "/children"));
  const std::vector<std::string> pids =
      absl::StrSplit(children.value_or(""), ' ', absl::SkipEmpty());
  pid_t child = 0;
  return !pids.empty() && absl::SimpleAtoi(pids.front(), &child) ? child : 0;
}

size_t MountsOf(pid_t pid) {
  const std::string text =
      ReadFile(absl::StrCat("/proc/", pid, "/mountinfo"), 16 << 20).value_or("");
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
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

Leftovers CountLeftovers(pid_t plugin, const std::string& state_dir, const std::string& task_mark) {
  Leftovers found;
  const pid_t spawner = ChildOf(plugin);
  found.plugin_fds = Entries(absl::StrCat("/proc/", plugin, "/fd"));
  found.spawner_fds = Entries(absl::StrCat("/proc/", spawner, "/fd"));
  found.cgroups = Cgroups(task_mark);
  found.mounts = MountsOf(plugin) + MountsOf(spawner);
  found.state_files = Entries(state_dir + "/tasks");
  return found;
}

std::string Describe(const Leftovers& leftovers) {
  return absl::StrCat("fds ", leftovers.plugin_fds, "+", leftovers.spawner_fds, ", cgroups ",
                      leftovers.cgroups, ", mounts ", leftovers.mounts, ", state ",
                      leftovers.state_files);
}

}  // namespace jenkins_agent::bench
