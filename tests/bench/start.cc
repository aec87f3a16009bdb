// StartTask over gRPC -> the payload's first instruction, beside `crun run` and `runc run` of an
// equivalent bundle, all with system call filters. Variants are alternated: a busy machine hits all
// of them alike. A program started without any sandbox tells the scale.
#include <time.h>

#include <functional>
#include <memory>
#include <string>
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

// design.md 9: ratios that are wanted, 0 = none.
struct Wanted {
  double back_to_back;
  double idle;
  double own_network;
};
constexpr Wanted kOfCrun = {5, 7, 3};
constexpr Wanted kOfRunc = {15, 15, 0};

struct Peer {
  std::string name;
  Wanted wanted;
  std::function<absl::StatusOr<Sample>()> measure;
  std::vector<Sample> samples = {};
};

struct Conditions {
  bool own_network;
  int gap_ms;
};

void Pause(int milliseconds) {
  const timespec gap = {0, milliseconds * 1'000'000L};
  if (milliseconds > 0) ::nanosleep(&gap, nullptr);
}

std::vector<double> All(const std::vector<Sample>& samples, double Sample::*figure) {
  std::vector<double> all;
  for (const Sample& sample : samples) all.push_back(sample.*figure);
  return all;
}

double WantedRatio(const Wanted& wanted, const Conditions& conditions) {
  if (conditions.own_network) return wanted.own_network;
  return conditions.gap_ms == 0 ? wanted.back_to_back : wanted.idle;
}

void ReportOurs(const Conditions& conditions, const std::string& text,
                const std::vector<Sample>& ours, Report& report) {
  Figure median{"start_median_ms", text, Median(All(ours, &Sample::first_instruction_ms))};
  if (!conditions.own_network) {
    median.target = absl::StrCat("<= ", kTargetMs);
    median.met = median.ours <= kTargetMs;
  }
  report.Add(median);
  report.Add({"start_answered_median_ms", text, Median(All(ours, &Sample::answered_ms))});
}

void ReportBeside(const Peer& peer, const Conditions& conditions, const std::string& text,
                  const std::vector<Sample>& ours, Report& report) {
  const auto beside = [&](const char* name, double fraction, double Sample::*figure) {
    return Figure{name, text, Percentile(All(ours, figure), fraction), peer.name,
                  Percentile(All(peer.samples, figure), fraction)};
  };
  Figure median = beside("start_median_ms", 0.5, &Sample::first_instruction_ms);
  if (const double ratio = WantedRatio(peer.wanted, conditions); ratio > 0) {
    median.target = absl::StrCat("ratio >= ", ratio);
    median.met = *median.theirs >= ratio * median.ours;
  }
  report.Add(median);
  report.Add(beside("start_p90_ms", 0.9, &Sample::first_instruction_ms));
  report.Add(beside("start_reaped_median_ms", 0.5, &Sample::reaped_ms));
}

absl::Status Measure(const Conditions& conditions, int runs, Fleet& fleet, std::vector<Peer> peers,
                     Report& report) {
  std::vector<Sample> ours;
  for (int run = -kWarmUps; run < runs; ++run) {
    Pause(conditions.gap_ms);
    ASSIGN_OR_RETURN(const Sample sample, fleet.MeasureStart(conditions.own_network));
    if (run >= 0) ours.push_back(sample);
    for (Peer& peer : peers) {
      Pause(conditions.gap_ms);
      ASSIGN_OR_RETURN(const Sample theirs, peer.measure(), peer.name);
      if (run >= 0) peer.samples.push_back(theirs);
    }
  }
  const std::string text = absl::StrCat(conditions.own_network ? "own network, " : "", "gap ",
                                        conditions.gap_ms, " ms, n ", runs);
  ReportOurs(conditions, text, ours, report);
  for (const Peer& peer : peers) ReportBeside(peer, conditions, text, ours, report);
  return absl::OkStatus();
}

absl::Status MeasurePhases(int runs, Fleet& fleet, Report& report) {
  struct Phase {
    const char* name;
    std::function<double(const pb::Timings&)> of;
    std::vector<double> samples = {};
  };
  Phase phases[] = {
      {"start_phase_plan_ms", [](const auto& t) { return t.ordered_ms(); }},
      {"start_phase_fork_ms", [](const auto& t) { return t.forked_ms() - t.ordered_ms(); }},
      {"start_phase_cgroup_ms", [](const auto& t) { return t.cgroup_ms() - t.forked_ms(); }},
      {"start_phase_root_ms", [](const auto& t) { return t.sandbox_ms() - t.cgroup_ms(); }},
      {"start_phase_launch_ms", [](const auto& t) { return t.launched_ms() - t.sandbox_ms(); }},
  };
  for (int run = -kWarmUps; run < runs; ++run) {
    ASSIGN_OR_RETURN(const pb::Timings timings, fleet.MeasurePhases());
    for (Phase& phase : phases) {
      if (run >= 0) phase.samples.push_back(phase.of(timings));
    }
  }
  for (const Phase& phase : phases) {
    report.Add({phase.name, absl::StrCat("gap 0 ms, n ", runs), Median(phase.samples)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BenchStart(const StartOptions& options, Report& report) {
  const TempDir dir;
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  RETURN_IF_ERROR(MeasurePhases(options.runs, *fleet, report));
  RETURN_IF_ERROR(HideUnifiedTree());  // the plugin and its tasks keep what they have seen so far
  for (const Conditions conditions : {Conditions{false, 0}, Conditions{false, kIdleGapMs},
                                      Conditions{true, 0}, Conditions{true, kIdleGapMs}}) {
    const TempDir bundle_dir;
    ASSIGN_OR_RETURN(const OciBundle bundle,
                     OciBundle::Make(bundle_dir.path(), fleet->probe(), conditions.own_network));
    std::vector<Peer> peers;
    const auto add = [&](const char* name, const Wanted& wanted) {
      if (!OciBundle::Installed(name)) return;
      peers.push_back({name, wanted, [&bundle, name] { return bundle.MeasureRun(name); }});
    };
    add("crun", kOfCrun);
    add("runc", kOfRunc);
    peers.push_back({"fork+exec", {}, [&] { return MeasureSpawn({fleet->probe()}); }});
    RETURN_IF_ERROR(Measure(conditions, options.runs, *fleet, std::move(peers), report));
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
