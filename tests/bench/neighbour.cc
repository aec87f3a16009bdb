// How late a 10 ms timer fires beside a task that takes all that it can get: in the driver's
// sandbox, in crun's with the same limits, and alone. The loads are alternated.
#include <time.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/clock.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/oci.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr int kPeriodMs = 10;
constexpr int kRounds = 3;
constexpr int64_t kNsPerMs = 1'000'000;
constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr char kPeer[] = "crun";

// A fork bomb, a memory bomb, a flood of the page cache and a full tmpfs at once.
constexpr char kLoad[] =
    "(while :; do tail /dev/zero; done) & dd if=/dev/zero of=/tmp/f bs=1M & "
    "(while :; do dd if=/dev/zero of=/local/f bs=1M count=200; cat /local/f; done) >/dev/null & "
    "perl -e 'fork while 1' & exec sleep 1000";  // the first process outlives the OOM killer

// Milliseconds that each tick came too late.
void Tick(int seconds, std::vector<double>& late_ms) {
  int64_t due = MonotonicNs();
  for (int tick = 0; tick < seconds * 1000 / kPeriodMs; ++tick) {
    due = std::max(due + kPeriodMs * kNsPerMs, MonotonicNs());
    const timespec until = {due / kNsPerSecond, due % kNsPerSecond};
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
    late_ms.push_back(static_cast<double>(MonotonicNs() - due) / kNsPerMs);
  }
}

}  // namespace

absl::Status BenchNeighbour(const NeighbourOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  const bool has_peer = OciBundle::Installed(kPeer);
  const TempDir bundle_dir;
  const std::string local_dir = std::filesystem::path(fleet->probe()).parent_path().string();
  RETURN_IF_ERROR(HideUnifiedTree());
  ASSIGN_OR_RETURN(const OciBundle bundle,
                   OciBundle::MakeScript(bundle_dir.path(), local_dir, kLoad));
  std::vector<double> alone;
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int round = 0; round < kRounds; ++round) {
    Tick(options.seconds, alone);
    RETURN_IF_ERROR(fleet->StartScript(kLoad));
    Tick(options.seconds, ours);
    RETURN_IF_ERROR(fleet->DestroyAll());
    if (!has_peer) continue;
    RETURN_IF_ERROR(bundle.StartDetached(kPeer), kPeer);
    Tick(options.seconds, theirs);
    RETURN_IF_ERROR(bundle.Kill(kPeer), kPeer);
  }
  const std::string conditions = absl::StrCat("10 ms timer, n ", ours.size());
  const auto add = [&](const char* figure, double fraction) {
    report.Add({absl::StrCat(figure, "_alone"), conditions, Percentile(alone, fraction)});
    Figure beside{figure, conditions, Percentile(ours, fraction)};
    if (has_peer) {
      beside.peer = kPeer;
      beside.theirs = Percentile(theirs, fraction);
    }
    report.Add(std::move(beside));
  };
  add("late_median_ms", 0.5);
  add("late_p99_ms", 0.99);
  add("late_max_ms", 1.0);
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
