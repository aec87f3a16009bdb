// What the bench found: a table for people, or one JSON line per figure (design.md 8).
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace jenkins_agent::bench {

struct Figure {
  std::string figure;      // name with its unit: start_median_ms
  std::string conditions;  // "gap 0, n 60"
  double ours = 0;
  std::string peer = {};  // who `theirs` is of; "recorded: ..." when not of this run
  std::optional<double> theirs = {};
  std::string target = {};  // empty: nothing was promised
  std::optional<bool> met = {};
};

class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  // JSON lines are printed at once.
  void Add(Figure figure);
  // The table. True when no figure misses its target.
  bool Finish() const;

 private:
  const bool json_;
  std::vector<Figure> figures_;
};

double Percentile(std::vector<double> samples, double fraction);
inline double Median(const std::vector<double>& samples) { return Percentile(samples, 0.5); }

}  // namespace jenkins_agent::bench
