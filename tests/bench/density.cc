// Many tasks at rest on one node, then tasks that come and go without leaving anything.
#include <time.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent::bench {
namespace {

constexpr double kPluginRssTargetMb = 100;
constexpr int kWarmUpCycles = 20;  // gRPC's and malloc's pools fill

absl::Status Rest(const DensityOptions& options, Fleet& fleet, Report& report) {
  const double begin = NowMs();
  RETURN_IF_ERROR(fleet.StartResting(0, options.tasks));
  const std::string conditions = absl::StrCat(options.tasks, " tasks at rest");
  report.Add({"density_start_ms_per_task", conditions, (NowMs() - begin) / options.tasks});
  ASSIGN_OR_RETURN(const int threads, ThreadsOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const double cpu_before, CpuSecondsOf(fleet.plugin()));
  const timespec rest = {options.seconds, 0};
  ::nanosleep(&rest, nullptr);
  ASSIGN_OR_RETURN(const double cpu_after, CpuSecondsOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const ProcessMemory plugin, MemoryOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const ProcessMemory helpers, fleet.HelperMemory());
  report.Add({"plugin_rss_mb",
              conditions,
              plugin.rss_kb / 1024,
              "",
              {},
              "<= 100 MiB",
              plugin.rss_kb / 1024 <= kPluginRssTargetMb});
  report.Add({"plugin_threads",
              conditions,
              static_cast<double>(threads),
              "",
              {},
              "no thread per task",
              threads < options.tasks / 2});
  report.Add({"plugin_cpu_ms", absl::StrCat(conditions, ", ", options.seconds, " s"),
              (cpu_after - cpu_before) * 1000});
  report.Add({"helper_pss_kb", conditions, helpers.pss_kb / options.tasks});
  report.Add({"helper_private_dirty_kb", conditions, helpers.private_dirty_kb / options.tasks});
  const double stopping = NowMs();
  RETURN_IF_ERROR(fleet.DestroyAll());
  report.Add({"density_destroy_ms_per_task", conditions, (NowMs() - stopping) / options.tasks});
  return absl::OkStatus();
}

absl::Status ComeAndGo(const DensityOptions& options, Fleet& fleet, Report& report) {
  for (int i = 0; i < kWarmUpCycles; ++i) RETURN_IF_ERROR(fleet.Cycle());
  const auto count = [&] {
    return CountLeftovers(fleet.plugin(), fleet.state_dir(), fleet.mark());
  };
  const Leftovers before = count();
  ASSIGN_OR_RETURN(const ProcessMemory memory_before, MemoryOf(fleet.plugin()));
  for (int i = 0; i < options.cycles; ++i) RETURN_IF_ERROR(fleet.Cycle(), "cycle ", i);
  // Descriptors of the last task are closed on the plugin's own threads.
  WaitFor([&] { return count() == before; }, std::chrono::seconds(5));
  const Leftovers after = count();
  ASSIGN_OR_RETURN(const ProcessMemory memory_after, MemoryOf(fleet.plugin()));
  const std::string conditions = absl::StrCat(options.cycles, " cycles");
  report.Add({"cycle_growth_rss_kb", conditions, memory_after.rss_kb - memory_before.rss_kb});
  report.Add({"cycle_leftovers",
              conditions,
              after == before ? 0.0 : 1.0,
              "",
              {},
              absl::StrCat("as before (", Describe(before), ")"),
              after == before});
  if (after == before) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("left behind: ", Describe(after), " instead of ", Describe(before)));
}

}  // namespace

absl::Status BenchDensity(const DensityOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path()));
  RETURN_IF_ERROR(Rest(options, *fleet, report));
  return ComeAndGo(options, *fleet, report);
}

}  // namespace jenkins_agent::bench
