// Many small tasks on one node, whose output the driver logs itself: what they cost at rest, and
// whether starts that come together, and the thousandth, still do.
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/process.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr double kPluginRssTargetMb = 100;
constexpr double kHelperPssTargetKb = 204.8;
constexpr int kThreadsForAll = 64;  // gRPC's and the C library's own, whatever the number of tasks
constexpr std::chrono::seconds kStatsInterval{1};  // what Nomad's client asks for
constexpr std::chrono::seconds kStatsDuration{10};

// What a shell and most service managers give to the agent, and so to its plugins.
absl::Status LowerOpenFiles() {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus("getrlimit");
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, 1024);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus("setrlimit");
  return absl::OkStatus();
}

absl::StatusOr<double> StartInTurn(int count, Fleet& fleet, Report& report) {
  const double begin = NowMs();
  RETURN_IF_ERROR(fleet.StartResting(count));
  const double each = (NowMs() - begin) / count;
  report.Add({"density_start_ms_per_task", absl::StrCat("up to ", fleet.size(), " tasks"), each});
  return each;
}

absl::Status AddMemory(const Fleet& fleet, Report& report) {
  const auto tasks = static_cast<double>(fleet.size());
  const std::string conditions = absl::StrCat(fleet.size(), " tasks at rest");
  ASSIGN_OR_RETURN(const ProcessMemory plugin, MemoryOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const int threads, ThreadsOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const ProcessMemory helpers, fleet.HelperMemory());
  const double rss_mb = plugin.rss_kb / 1024;
  const double pss_kb = helpers.pss_kb / tasks;
  report.Add(
      {"plugin_rss_mb", conditions, rss_mb, "", {}, "<= 100 MiB", rss_mb <= kPluginRssTargetMb});
  report.Add({"plugin_threads",
              conditions,
              static_cast<double>(threads),
              "",
              {},
              "no thread per task",
              threads <= kThreadsForAll});
  report.Add({"plugin_fds", conditions, static_cast<double>(DescriptorsOf(fleet.plugin()))});
  report.Add(
      {"helper_pss_kb", conditions, pss_kb, "", {}, "<= 0.2 MiB", pss_kb <= kHelperPssTargetKb});
  report.Add({"helper_private_dirty_kb", conditions, helpers.private_dirty_kb / tasks});
  return absl::OkStatus();
}

absl::Status Rest(int seconds, Fleet& fleet, Report& report) {
  const std::string conditions = absl::StrCat(fleet.size(), " tasks");
  ASSIGN_OR_RETURN(const double begin, CpuSecondsOf(fleet.plugin()));
  const timespec rest = {seconds, 0};
  ::nanosleep(&rest, nullptr);
  ASSIGN_OR_RETURN(const double rested, CpuSecondsOf(fleet.plugin()));
  report.Add({"plugin_cpu_ms", absl::StrCat(conditions, ", ", seconds, " s at rest"),
              (rested - begin) * 1000});
  ASSIGN_OR_RETURN(const int samples, fleet.FollowStats(kStatsInterval, kStatsDuration));
  ASSIGN_OR_RETURN(const double followed, CpuSecondsOf(fleet.plugin()));
  report.Add({"plugin_cpu_us_per_sample", absl::StrCat(conditions, ", stats each second"),
              (followed - rested) * 1e6 / samples});
  return absl::OkStatus();
}

absl::Status StartAtOnce(int count, double in_turn_ms, Fleet& fleet, Report& report) {
  ASSIGN_OR_RETURN(const std::vector<double> answered, fleet.StartTogether(count));
  const std::string conditions = absl::StrCat(count, " at once");
  report.Add({"start_slowest_ms", conditions, answered.back()});
  report.Add(
      {"start_ms_per_task", conditions, answered.back() / count, "one after another", in_turn_ms});
  return absl::OkStatus();
}

// As when a node is drained.
absl::Status End(Fleet& fleet, Report& report) {
  const auto tasks = static_cast<double>(fleet.size());
  const std::string conditions = absl::StrCat(tasks, " tasks");
  ASSIGN_OR_RETURN(const double stopped_ms, fleet.StopTogether());
  report.Add({"stop_all_at_once_ms", conditions, stopped_ms});
  const double begin = NowMs();
  RETURN_IF_ERROR(fleet.DestroyAll());
  report.Add({"density_destroy_ms_per_task", conditions, (NowMs() - begin) / tasks});
  ASSIGN_OR_RETURN(const double peak_kb, PeakRssKbOf(fleet.plugin()));
  report.Add({"plugin_peak_rss_mb",
              conditions,
              peak_kb / 1024,
              "",
              {},
              "<= 100 MiB",
              peak_kb / 1024 <= kPluginRssTargetMb});
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchDensity(const DensityOptions& options, Report& report) {
  RETURN_IF_ERROR(LowerOpenFiles());
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet,
                   Fleet::Launch(dir.path(), {.own_logs = true}));
  ASSIGN_OR_RETURN(const double in_turn_ms, StartInTurn(options.tasks, *fleet, report));
  RETURN_IF_ERROR(AddMemory(*fleet, report));
  RETURN_IF_ERROR(Rest(options.seconds, *fleet, report));
  RETURN_IF_ERROR(StartAtOnce(options.together, in_turn_ms, *fleet, report));
  const int more = options.most - static_cast<int>(fleet->size());
  if (more > 0) {
    RETURN_IF_ERROR(StartInTurn(more, *fleet, report).status());
    RETURN_IF_ERROR(AddMemory(*fleet, report));
  }
  return End(*fleet, report);
}

}  // namespace jenkins_agent::bench
