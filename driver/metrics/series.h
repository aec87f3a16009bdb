// Every series that the driver exports, in one table: names, types, labels and help. The listener's
// answers and the table of README.md come from it.
//
// A label has a fixed set of values, so that the number of series never grows with jobs, agents or
// time; nothing of a job is ever a label's value. Pure.
#pragma once

#include <string>
#include <vector>

namespace jenkins_agent {

enum class Metric {
  kUp,
  kBuildInfo,
  kTasks,
  kAgents,
  kStarts,
  kSandboxStart,
  kAgentStart,
  kRecoveries,
  kEnds,
  kRestarts,
  kOomKills,
  kThreadCrossings,
  kDroppedLogBytes,
  kThreads,
  kThreadsLimit,
  kThreadsRatioMax,
  kMemory,
  kMemoryLimit,
  kMemoryRatioMax,
  kCpuThrottled,
  kStalls,
  kFingerprintChanges,
  kImagePulls,
  kImagePull,
  kImagePulledBytes,
  kImages,
  kImageStoreBytes,
  kImagesRemoved,
};

struct Series {
  enum Type { kGauge, kCounter, kHistogram };
  std::string name;
  Type type;
  std::string label;                // empty: none
  std::vector<std::string> values;  // of the label; empty: one, which is set at run time
  std::vector<double> bounds;       // of a histogram: upper ends, ascending, +Inf left out
  std::string help;                 // one line, with the unit; Markdown for README.md
};

// In the order of Metric.
const std::vector<Series>& SeriesTable();
const Series& SeriesOf(Metric metric);

// The table of README.md; every line ends with a newline.
std::string MetricsMarkdown();

}  // namespace jenkins_agent
