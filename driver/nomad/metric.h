// Nomad's own report of a failed placement: its text, and the counts that it would make now. Pure.
#pragma once

#include <string>
#include <vector>

#include "driver/nomad/explanation.h"
#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// The lines that `nomad job status` prints (command/monitor.go, formatAllocMetrics), without "* ".
// Nomad's order within a kind is random; here it is by name.
std::vector<std::string> MetricLines(const Metric& metric);

// What the scheduler would count for these nodes. Nodes of a computed class that was refused before
// are counted under their own reason, where Nomad says "computed class ineligible".
Metric CountAsNomad(const std::vector<NodeReport>& nodes, int64_t unplaced);

}  // namespace jenkins_agent::nomad
