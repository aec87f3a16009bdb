// A snapshot as prometheus-cpp wants it. Pure.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "proto/metrics.pb.h"

namespace jenkins_agent {

// jenkins_agent_up alone: 0.
std::vector<prometheus::MetricFamily> NoAnswer();

// jenkins_agent_up = 1 and the snapshot; families of no row of the table are left out.
std::vector<prometheus::MetricFamily> Families(const pb::MetricsSnapshot& snapshot);

}  // namespace jenkins_agent
