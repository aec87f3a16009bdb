// The plugin is killed and comes back: how long until every task is followed again.
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

// nomad-agent.md 4.2: a Go plugin whose tasks are children without helpers, 23 of them.
constexpr char kGoPlugin[] = "recorded: Go plugin, 23 tasks";
constexpr double kGoRelaunchMs = 22;
constexpr double kGoMsPerTask = 15.5 / 23;

}  // namespace

absl::Status BenchRecover(const RecoverOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path()));
  std::vector<double> relaunch;
  std::vector<double> recover;
  for (int round = 0; round < options.rounds; ++round) {
    RETURN_IF_ERROR(fleet->StartResting(0, options.tasks));
    ASSIGN_OR_RETURN(const Fleet::Recovery recovery, fleet->CrashAndRecover());
    relaunch.push_back(recovery.relaunch_ms);
    recover.push_back(recovery.recover_ms / options.tasks);
  }
  const std::string conditions = absl::StrCat(options.tasks, " tasks, n ", options.rounds);
  report.Add({"relaunch_ms", conditions, Median(relaunch), kGoPlugin, kGoRelaunchMs});
  report.Add({"recover_ms_per_task", conditions, Median(recover), kGoPlugin, kGoMsPerTask,
              "ratio >= 1", Median(recover) <= kGoMsPerTask});
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
