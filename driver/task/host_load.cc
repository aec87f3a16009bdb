#include "driver/task/host_load.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "cgroups/hierarchy.h"
#include "driver/base/file.h"
#include "driver/base/recoverable.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

absl::Status Garbled(const std::string& path) {
  return absl::DataLossError(absl::StrCat(path, ": not what proc(5) describes"));
}

absl::StatusOr<uint64_t> ReadNumber(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  uint64_t number = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &number)) return Garbled(path);
  return number;
}

// "0.20 0.18 0.12 1/80 11206": the number behind the slash is that of all threads.
absl::StatusOr<uint64_t> ReadThreads(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<absl::string_view> fields = absl::StrSplit(text, ' ');
  if (fields.size() < 4) return Garbled(path);
  const std::pair<absl::string_view, absl::string_view> tasks =
      absl::StrSplit(fields[3], absl::MaxSplits('/', 1));
  uint64_t threads = 0;
  if (!absl::SimpleAtoi(tasks.second, &threads)) return Garbled(path);
  return threads;
}

// "MemAvailable:   20161536 kB"
absl::StatusOr<uint64_t> ReadAvailableBytes(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, "MemAvailable:")) continue;
    uint64_t kilobytes = 0;
    absl::ConsumeSuffix(&line, " kB");
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kilobytes)) return kilobytes << 10;
  }
  return Garbled(path);
}

// A supervisor's error comes over the wire as code and text only; Unavailable alone is also a peer
// that is gone.
bool IsForkRefused(const absl::Status& status) {
  return absl::IsUnavailable(status) && absl::EndsWith(status.message(), ::strerrordesc_np(EAGAIN));
}

struct PidsUse {
  std::string cgroup;  // as messages show it: "pids/system.slice/nomad.service"
  uint64_t current = 0;
  uint64_t max = 0;
};

// pids.max counts for all below it (cgroup-v2.rst, "PID"), so the one with the least room decides.
// The root has no limit.
std::optional<PidsUse> FullestPidsCgroup() {
  const absl::StatusOr<cgroups::Hierarchy> hierarchy = cgroups::Hierarchy::Detect();
  if (!hierarchy.ok()) return std::nullopt;
  const std::string root = hierarchy->ControllerPath("pids");
  std::string dir = hierarchy->OuterPath("pids");
  std::optional<PidsUse> fullest;
  for (; dir.size() > root.size(); dir.resize(dir.rfind('/'))) {
    const absl::StatusOr<uint64_t> current = ReadNumber(dir + "/pids.current");
    const absl::StatusOr<uint64_t> max = ReadNumber(dir + "/pids.max");
    if (!current.ok() || !max.ok()) continue;  // "max": no limit
    const PidsUse use = {.cgroup = hierarchy->Short(dir), .current = *current, .max = *max};
    const auto room = [](const PidsUse& of) { return of.max - std::min(of.current, of.max); };
    if (!fullest.has_value() || room(use) < room(*fullest)) fullest = use;
  }
  return fullest;
}

absl::Status Exhausted(absl::string_view message) {
  return MakeRecoverable(absl::ResourceExhaustedError(message));
}

}  // namespace

absl::StatusOr<HostLoad> ReadHostLoad(const std::string& proc_root) {
  HostLoad load;
  ASSIGN_OR_RETURN(load.threads, ReadThreads(proc_root + "/loadavg"));
  ASSIGN_OR_RETURN(const uint64_t threads_max, ReadNumber(proc_root + "/sys/kernel/threads-max"));
  ASSIGN_OR_RETURN(const uint64_t pid_max, ReadNumber(proc_root + "/sys/kernel/pid_max"));
  load.max_threads = std::min(threads_max, pid_max);
  ASSIGN_OR_RETURN(load.available_bytes, ReadAvailableBytes(proc_root + "/meminfo"));
  return load;
}

absl::Status CheckHostLoad(const HostLoad& load, int64_t memory_bytes) {
  if (load.threads + kThreadsOfAStart > load.max_threads) {
    return Exhausted(absl::StrCat("host threads ", load.threads, " of ", load.max_threads,
                                  " in use; a start needs ", kThreadsOfAStart,
                                  " (kernel.threads-max, kernel.pid_max)"));
  }
  const uint64_t needed =
      memory_bytes > 0 ? std::min<uint64_t>(kMemoryOfAStart, memory_bytes) : kMemoryOfAStart;
  if (load.available_bytes < needed) {
    return Exhausted(absl::StrCat("host memory: ", load.available_bytes / kMiB,
                                  " MiB are available; a start needs ", needed / kMiB, " MiB"));
  }
  return absl::OkStatus();
}

absl::Status TellProcessLimit(const absl::Status& failed) {
  if (!IsForkRefused(failed)) return failed;
  const std::optional<PidsUse> use = FullestPidsCgroup();
  if (use.has_value()) {
    return Exhausted(absl::StrCat(failed.message(), ": ", use->current, " of ", use->max,
                                  " processes and threads in the plugin's cgroup ", use->cgroup,
                                  " (pids.max; TasksMax of a systemd unit)"));
  }
  const absl::StatusOr<HostLoad> load = ReadHostLoad();
  if (!load.ok()) return Exhausted(failed.message());
  return Exhausted(absl::StrCat(failed.message(), ": host threads ", load->threads, " of ",
                                load->max_threads, " in use (kernel.threads-max, kernel.pid_max)"));
}

absl::Status CheckIoWeight(const std::string& sys_root) {
  // "8:0 enable=1 ctrl=auto ..." (Documentation/admin-guide/cgroup-v2.rst, io.cost.qos)
  const absl::StatusOr<std::string> cost = ReadFile(sys_root + "/fs/cgroup/io.cost.qos");
  if (cost.ok() && absl::StrContains(*cost, "enable=1")) return absl::OkStatus();
  std::vector<std::string> disks;
  std::error_code ignored;  // no disks to look at: none with a weight
  for (const auto& disk : std::filesystem::directory_iterator(sys_root + "/block", ignored)) {
    const absl::StatusOr<std::string> schedulers = ReadFile(disk.path() / "queue/scheduler");
    if (!schedulers.ok()) continue;
    if (absl::StrContains(*schedulers, "[bfq]")) return absl::OkStatus();
    disks.push_back(disk.path().filename());
  }
  std::sort(disks.begin(), disks.end());
  return absl::FailedPreconditionError(absl::StrCat(
      "io_weight: no disk of this node heeds a weight: none of ", absl::StrJoin(disks, ", "),
      " has the I/O scheduler bfq (/sys/block/DISK/queue/scheduler), and io.cost is not enabled"));
}

}  // namespace jenkins_agent
