#include "driver/nomad/metric.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace jenkins_agent::nomad {

std::vector<std::string> MetricLines(const Metric& metric) {
  std::vector<std::string> lines;
  if (metric.nodes_evaluated == 0) lines.push_back("No nodes were eligible for evaluation");
  for (const auto& [datacenter, count] : metric.nodes_available) {
    if (count != 0) continue;
    lines.push_back(absl::StrCat("No nodes are available in datacenter \"", datacenter, "\""));
  }
  for (const auto& [name, count] : metric.class_filtered) {
    lines.push_back(absl::StrCat("Class \"", name, "\": ", count, " nodes excluded by filter"));
  }
  for (const auto& [name, count] : metric.constraint_filtered) {
    lines.push_back(
        absl::StrCat("Constraint \"", name, "\": ", count, " nodes excluded by filter"));
  }
  if (metric.nodes_exhausted > 0) {
    lines.push_back(absl::StrCat("Resources exhausted on ", metric.nodes_exhausted, " nodes"));
  }
  for (const auto& [name, count] : metric.class_exhausted) {
    lines.push_back(absl::StrCat("Class \"", name, "\" exhausted on ", count, " nodes"));
  }
  for (const auto& [name, count] : metric.dimension_exhausted) {
    lines.push_back(absl::StrCat("Dimension \"", name, "\" exhausted on ", count, " nodes"));
  }
  for (const std::string& name : metric.quota_exhausted) {
    lines.push_back(absl::StrCat("Quota limit hit \"", name, "\""));
  }
  return lines;
}

Metric CountAsNomad(const std::vector<NodeReport>& nodes, int64_t unplaced) {
  Metric metric;
  metric.coalesced_failures = std::max<int64_t>(0, unplaced - 1);
  for (const NodeReport& node : nodes) {
    if (node.standing == Standing::kLeftOut) continue;
    ++metric.nodes_evaluated;
    ++metric.nodes_available[node.datacenter];
    if (node.standing == Standing::kFiltered) {
      ++metric.nodes_filtered;
      ++metric.constraint_filtered[node.nomad_reason];
      if (!node.node_class.empty()) ++metric.class_filtered[node.node_class];
    }
    if (node.standing == Standing::kNoRoom) {
      ++metric.nodes_exhausted;
      ++metric.dimension_exhausted[node.nomad_reason];
      if (!node.node_class.empty()) ++metric.class_exhausted[node.node_class];
    }
  }
  return metric;
}

}  // namespace jenkins_agent::nomad
