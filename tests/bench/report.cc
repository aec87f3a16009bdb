#include "tests/bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"

namespace jenkins_agent::bench {
namespace {

double Rounded(double value) { return std::round(value * 1000) / 1000; }

// Lower is better in every figure here.
std::optional<double> Ratio(const Figure& figure) {
  if (!figure.theirs.has_value() || figure.ours <= 0) return std::nullopt;
  return *figure.theirs / figure.ours;
}

std::string Text(const std::optional<double>& number, const char* suffix = "") {
  return number.has_value() ? absl::StrFormat("%.2f%s", *number, suffix) : std::string();
}

}  // namespace

void Report::Add(Figure figure) {
  if (json_) {
    nlohmann::ordered_json line = {{"figure", figure.figure},
                                   {"conditions", figure.conditions},
                                   {"ours", Rounded(figure.ours)}};
    if (!figure.peer.empty()) line["peer"] = figure.peer;
    if (figure.theirs.has_value()) line["theirs"] = Rounded(*figure.theirs);
    if (const auto ratio = Ratio(figure)) line["ratio"] = Rounded(*ratio);
    if (!figure.target.empty()) line["target"] = figure.target;
    if (figure.met.has_value()) line["met"] = *figure.met;
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }
  figures_.push_back(std::move(figure));
}

bool Report::Finish() const {
  bool all_met = true;
  if (!json_) {
    std::printf("%-30s %-26s %10s %10s %8s  %-34s %s\n", "figure", "conditions", "ours", "theirs",
                "ratio", "peer", "target");
  }
  for (const Figure& figure : figures_) {
    all_met = all_met && figure.met.value_or(true);
    if (json_) continue;
    const std::string verdict = !figure.met.has_value() ? "" : *figure.met ? ": met" : ": MISSED";
    std::printf("%-30s %-26s %10.2f %10s %8s  %-34s %s%s\n", figure.figure.c_str(),
                figure.conditions.c_str(), figure.ours, Text(figure.theirs).c_str(),
                Text(Ratio(figure), "x").c_str(), figure.peer.c_str(), figure.target.c_str(),
                verdict.c_str());
  }
  return all_met;
}

double Percentile(std::vector<double> samples, double fraction) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  return samples[static_cast<size_t>(fraction * static_cast<double>(samples.size() - 1) + 0.5)];
}

}  // namespace jenkins_agent::bench
