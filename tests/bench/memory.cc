// What a resting task costs in helper processes: supervisor and pid 1 together.
#include <memory>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

// isolation.md 4.2, on the same kind of machine; a shim needs its daemon to run.
constexpr char kConmon[] = "recorded: conmon 2.1.6";
constexpr double kConmonPssKb = 606;
constexpr double kConmonPrivateDirtyKb = 330;

constexpr int kEnoughToShare = 20;  // below, the program's pages are shared by too few
constexpr double kPssTargetKb = 204.8;
constexpr double kPrivateDirtyTargetKb = 102.4;

}  // namespace

absl::Status BenchMemory(Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  for (const int tasks : {1, 20, 100}) {
    RETURN_IF_ERROR(fleet->StartResting(tasks - static_cast<int>(fleet->size())));
    ASSIGN_OR_RETURN(const ProcessMemory sum, fleet->HelperMemory());
    const std::string conditions = absl::StrCat("per task, ", tasks, " tasks");
    const double pss = sum.pss_kb / tasks;
    const double dirty = sum.private_dirty_kb / tasks;
    Figure pss_figure{"helper_pss_kb", conditions, pss, kConmon, kConmonPssKb};
    Figure dirty_figure{"helper_private_dirty_kb", conditions, dirty, kConmon,
                        kConmonPrivateDirtyKb};
    if (tasks >= kEnoughToShare) {
      pss_figure.target = "<= 0.2 MiB";
      pss_figure.met = pss <= kPssTargetKb;
      dirty_figure.target = "<= 0.1 MiB";
      dirty_figure.met = dirty <= kPrivateDirtyTargetKb;
    }
    report.Add(pss_figure);
    report.Add(dirty_figure);
    ASSIGN_OR_RETURN(const ProcessMemory plugin, MemoryOf(fleet->plugin()));
    ASSIGN_OR_RETURN(const int threads, ThreadsOf(fleet->plugin()));
    report.Add({"plugin_rss_mb", absl::StrCat(tasks, " tasks"), plugin.rss_kb / 1024});
    report.Add({"plugin_threads", absl::StrCat(tasks, " tasks"), static_cast<double>(threads)});
  }
  return fleet->DestroyAll();
}

}  // namespace jenkins_agent::bench
