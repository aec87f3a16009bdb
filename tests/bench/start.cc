// StartTask over gRPC -> the payload's first instruction, beside `crun run` and `runc run` of an
// equivalent bundle. Variants are alternated: a busy machine hits all of them alike.
#include <time.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/oci.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr int kWarmUps = 3;
constexpr int kIdleGapMs = 50;
constexpr double kTargetMs = 3.5;
constexpr double kRuncRatio = 15;

struct Peer {
  std::string name;
  double back_to_back_ratio;  // design.md 9
  double idle_ratio;
  std::vector<double> samples;
};

void Pause(int milliseconds) {
  const timespec gap = {0, milliseconds * 1'000'000L};
  if (milliseconds > 0) ::nanosleep(&gap, nullptr);
}

absl::Status MeasureWithGap(int gap_ms, int runs, Fleet& fleet, const OciBundle& bundle,
                            std::vector<Peer> peers, Report& report) {
  std::vector<double> first;
  std::vector<double> answered;
  for (int run = -kWarmUps; run < runs; ++run) {
    Pause(gap_ms);
    ASSIGN_OR_RETURN(const Fleet::Sample sample, fleet.MeasureStart());
    if (run >= 0) {
      first.push_back(sample.first_instruction_ms);
      answered.push_back(sample.answered_ms);
    }
    for (Peer& peer : peers) {
      Pause(gap_ms);
      ASSIGN_OR_RETURN(const double ms, bundle.MeasureRun(peer.name), peer.name);
      if (run >= 0) peer.samples.push_back(ms);
    }
  }
  const std::string conditions = absl::StrCat("gap ", gap_ms, " ms, n ", runs);
  report.Add(
      {"start_median_ms", conditions, Median(first), "", {}, "<= 3.5", Median(first) <= kTargetMs});
  for (const Peer& peer : peers) {
    const double wanted = gap_ms == 0 ? peer.back_to_back_ratio : peer.idle_ratio;
    report.Add({"start_median_ms", conditions, Median(first), peer.name, Median(peer.samples),
                absl::StrCat("ratio >= ", wanted), Median(peer.samples) >= wanted * Median(first)});
    report.Add({"start_p90_ms", conditions, Percentile(first, 0.9), peer.name,
                Percentile(peer.samples, 0.9)});
  }
  report.Add({"start_answered_median_ms", conditions, Median(answered)});
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchStart(const StartOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  std::vector<Peer> peers;
  if (OciBundle::Installed("crun")) peers.push_back({"crun", 5, 7, {}});
  if (OciBundle::Installed("runc")) peers.push_back({"runc", kRuncRatio, kRuncRatio, {}});
  const TempDir bundle_dir;
  ASSIGN_OR_RETURN(const OciBundle bundle, OciBundle::Make(bundle_dir.path(), fleet->probe()));
  for (const int gap_ms : {0, kIdleGapMs}) {
    RETURN_IF_ERROR(MeasureWithGap(gap_ms, options.runs, *fleet, bundle, peers, report));
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
