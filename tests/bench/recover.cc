// The plugin is killed and comes back: how long until every task is followed again, beside a
// trivial driver of Nomad's own Go library (tests/nomad/trivial). Rounds of the two alternate.
#include <unistd.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr char kPeer[] = "trivial Go driver";

// One driver's fleet and its samples.
struct Contestant {
  std::unique_ptr<Fleet> fleet;
  std::vector<double> relaunch_ms = {};
  std::vector<double> recover_ms = {};
};

absl::Status Round(int tasks, int at_once, Contestant& contestant) {
  RETURN_IF_ERROR(contestant.fleet->StartResting(tasks));
  ASSIGN_OR_RETURN(const Fleet::Recovery recovery, contestant.fleet->CrashAndRecover(at_once));
  contestant.relaunch_ms.push_back(recovery.relaunch_ms);
  contestant.recover_ms.push_back(recovery.recover_ms);
  return absl::OkStatus();
}

Figure Compared(const char* name, const std::string& conditions, const std::vector<double>& ours,
                const std::vector<double>& theirs) {
  Figure figure{name, conditions, Median(ours)};
  if (theirs.empty()) return figure;
  figure.peer = kPeer;
  figure.theirs = Median(theirs);
  return figure;
}

absl::Status Measure(const RecoverOptions& options, int at_once, Report& report) {
  const TempDir our_dir;
  const TempDir their_dir;
  Contestant ours;
  Contestant theirs;
  ASSIGN_OR_RETURN(ours.fleet, Fleet::Launch(our_dir.path(), {}));
  if (!options.peer.empty()) {
    ASSIGN_OR_RETURN(theirs.fleet,
                     Fleet::Launch(their_dir.path(), {.driver = options.peer, .host_paths = true}),
                     kPeer);
  }
  for (int round = 0; round < options.rounds; ++round) {
    RETURN_IF_ERROR(Round(options.tasks, at_once, ours));
    if (theirs.fleet != nullptr) RETURN_IF_ERROR(Round(options.tasks, at_once, theirs), kPeer);
  }
  const std::string conditions = absl::StrCat(
      options.tasks, " tasks, ", at_once == 1 ? "in turn" : "at once", ", n ", options.rounds);
  report.Add(Compared("relaunch_ms", conditions, ours.relaunch_ms, theirs.relaunch_ms));
  Figure recover = Compared("recover_ms", conditions, ours.recover_ms, theirs.recover_ms);
  if (recover.theirs.has_value()) {
    recover.target = "ratio >= 1";
    recover.met = recover.ours <= *recover.theirs;
  }
  report.Add(recover);
  return absl::OkStatus();
}

}  // namespace

// At once: as Nomad's client does, whose tasks recover independently of each other.
absl::Status BenchRecover(const RecoverOptions& options, Report& report) {
  RETURN_IF_ERROR(Measure(options, options.tasks, report));
  return Measure(options, 1, report);
}

}  // namespace jenkins_agent::bench
