// How late a neighbour's 10 ms timer fires beside a task that takes all that it can get: both in
// the driver's sandboxes, both in crun's with the same limits, and the neighbour alone. The loads
// are alternated, and each has to prove that it ran.
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/oci.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr int kTicksPerSecond = 100;
constexpr int kRounds = 3;
constexpr double kNsPerMs = 1e6;
constexpr double kNsPerSecond = 1e9;
constexpr double kMiB = 1 << 20;
constexpr double kLeastCpu = 0.1;  // of one core: less is no load
constexpr char kPeer[] = "crun";

const Program kLoad = {.file = LOAD_FILE, .memory_mb = 256, .pids = 256};

// load.c writes it.
struct Progress {
  uint64_t forks_refused;
  uint64_t memory_bombs_killed;
  uint64_t flooded_bytes;
  uint64_t tmpfs_filled;
};

// What the loads of one side have got done, all rounds together.
struct Proof {
  double cpu_seconds = 0;
  double forks_refused = 0;
  double oom_kills = 0;
  double flooded_mib = 0;
  double tmpfs_fills = 0;
};

struct Side {
  std::string name;
  std::vector<double> late_ms = {};
  Proof proof = {};
};

void AddLateness(const std::string& output, Side& side) {
  for (size_t at = 0; at + sizeof(int64_t) <= output.size(); at += sizeof(int64_t)) {
    int64_t late_ns;
    std::memcpy(&late_ns, output.data() + at, sizeof(late_ns));
    side.late_ms.push_back(static_cast<double>(late_ns) / kNsPerMs);
  }
}

// CPU time and kills are the kernel's own count.
absl::Status AddProof(const cgroups::Hierarchy& hierarchy, const Running& load, Side& side) {
  ASSIGN_OR_RETURN(const std::string file, ReadFile(load.local_dir + "/load"), side.name);
  Progress progress;
  if (file.size() != sizeof(progress)) {
    return absl::FailedPreconditionError(absl::StrCat(side.name, ": the load did not begin"));
  }
  std::memcpy(&progress, file.data(), sizeof(progress));
  ASSIGN_OR_RETURN(const cgroups::Cgroup cgroup, cgroups::Cgroup::Open(hierarchy, load.cgroup_dirs),
                   side.name);
  ASSIGN_OR_RETURN(const cgroups::Usage usage, cgroup.ReadUsage(), side.name);
  ASSIGN_OR_RETURN(const uint64_t oom_kills, cgroup.OomKills(), side.name);
  side.proof.cpu_seconds += static_cast<double>(usage.cpu_total_ns.value_or(0)) / kNsPerSecond;
  side.proof.oom_kills += static_cast<double>(oom_kills);
  side.proof.forks_refused += static_cast<double>(progress.forks_refused);
  side.proof.flooded_mib += static_cast<double>(progress.flooded_bytes) / kMiB;
  side.proof.tmpfs_fills += static_cast<double>(progress.tmpfs_filled);
  return absl::OkStatus();
}

absl::Status CheckProof(const Side& side, int seconds) {
  const auto missing = [&](const char* what) {
    return absl::FailedPreconditionError(
        absl::StrCat(side.name, ": the load did not run: ", what, "; its figures say nothing"));
  };
  const Proof& proof = side.proof;
  if (proof.cpu_seconds < kLeastCpu * seconds) return missing("it used next to no CPU");
  if (proof.forks_refused == 0) return missing("no fork was refused");
  if (proof.oom_kills == 0) return missing("nobody was killed for memory");
  if (proof.flooded_mib == 0) return missing("nothing was written to the page cache");
  if (proof.tmpfs_fills == 0) return missing("the tmpfs was never full");
  return absl::OkStatus();
}

absl::Status MeasureOurs(const Program& ticker, size_t output_bytes,
                         const cgroups::Hierarchy& hierarchy, Fleet& fleet, Side& side) {
  ASSIGN_OR_RETURN(const Running load, fleet.StartProgram(kLoad), side.name);
  ASSIGN_OR_RETURN(const std::string late, fleet.RunProgram(ticker, output_bytes), side.name);
  RETURN_IF_ERROR(AddProof(hierarchy, load, side));
  AddLateness(late, side);
  return fleet.DestroyAll();
}

absl::Status MeasureTheirs(const Program& ticker, const cgroups::Hierarchy& hierarchy, Side& side) {
  const TempDir load_dir;
  const TempDir ticker_dir;
  ASSIGN_OR_RETURN(const OciBundle load, OciBundle::MakeProgram(load_dir.path(), kLoad));
  ASSIGN_OR_RETURN(const OciBundle neighbour, OciBundle::MakeProgram(ticker_dir.path(), ticker));
  RETURN_IF_ERROR(load.StartDetached(kPeer), kPeer);
  const absl::StatusOr<std::string> late = neighbour.Run(kPeer);
  const absl::Status proved = AddProof(hierarchy, load.running(hierarchy), side);
  RETURN_IF_ERROR(load.Kill(kPeer), kPeer);
  RETURN_IF_ERROR(late.status(), kPeer);
  AddLateness(*late, side);
  return proved;
}

void ReportAll(const Side& alone, const Side& ours, const std::optional<Side>& theirs,
               Report& report) {
  const std::string conditions = absl::StrCat("10 ms timer, n ", ours.late_ms.size());
  const auto add_late = [&](const char* figure, double fraction, bool wanted) {
    report.Add({absl::StrCat(figure, "_alone"), conditions, Percentile(alone.late_ms, fraction)});
    Figure beside{figure, conditions, Percentile(ours.late_ms, fraction)};
    if (theirs.has_value()) {
      beside.peer = kPeer;
      beside.theirs = Percentile(theirs->late_ms, fraction);
      if (wanted) {
        beside.target = "never later";
        beside.met = beside.ours <= *beside.theirs;
      }
    }
    report.Add(std::move(beside));
  };
  add_late("late_median_ms", 0.5, false);
  add_late("late_p99_ms", 0.99, false);
  add_late("late_max_ms", 1.0, true);
  const auto add_proof = [&](const char* figure, double Proof::*done) {
    Figure proof{figure, "the load itself", ours.proof.*done};
    if (theirs.has_value()) {
      proof.peer = kPeer;
      proof.theirs = theirs->proof.*done;
    }
    report.Add(std::move(proof));
  };
  add_proof("load_cpu_s", &Proof::cpu_seconds);
  add_proof("load_forks_refused", &Proof::forks_refused);
  add_proof("load_oom_kills", &Proof::oom_kills);
  add_proof("load_page_cache_mib", &Proof::flooded_mib);
  add_proof("load_tmpfs_fills", &Proof::tmpfs_fills);
}

}  // namespace

absl::Status BenchNeighbour(const NeighbourOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  RETURN_IF_ERROR(HideUnifiedTree());
  const int ticks = options.seconds * kTicksPerSecond;
  const Program ticker = {.file = TICKER_FILE, .args = {absl::StrCat(ticks)}};
  const size_t output_bytes = static_cast<size_t>(ticks) * sizeof(int64_t);
  Side alone{"alone"};
  Side ours{"the driver"};
  std::optional<Side> theirs;
  if (OciBundle::Installed(kPeer)) theirs = Side{kPeer};
  for (int round = 0; round < kRounds; ++round) {
    ASSIGN_OR_RETURN(const std::string late, fleet->RunProgram(ticker, output_bytes), alone.name);
    AddLateness(late, alone);
    RETURN_IF_ERROR(MeasureOurs(ticker, output_bytes, hierarchy, *fleet, ours));
    if (theirs) RETURN_IF_ERROR(MeasureTheirs(ticker, hierarchy, *theirs));
  }
  RETURN_IF_ERROR(CheckProof(ours, kRounds * options.seconds));
  if (theirs) RETURN_IF_ERROR(CheckProof(*theirs, kRounds * options.seconds));
  ReportAll(alone, ours, theirs, report);
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
