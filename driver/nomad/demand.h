// All that waits in a cluster, summed: how many, of what, and how many more nodes would place it.
// Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "driver/nomad/assess.h"
#include "driver/nomad/explanation.h"

namespace jenkins_agent::nomad {

struct WaitingGroup {
  std::string job, name_space, group;
  int64_t unplaced = 0;
  Verdict verdict = Verdict::kNoRoom;
  int64_t waiting_seconds = 0;
  std::string why;  // one line: the nearest node and what it lacks, or what keeps the group off
  Ask ask;
};

// Further nodes of one kind.
struct NodeOffer {
  std::string like;  // a node of that kind; empty: no node of the cluster could hold what waits
  int64_t count = 0;
  int64_t cpu_mhz = 0, memory_mb = 0, disk_mb = 0;  // what one of them offers to jobs
};

struct Demand {
  std::vector<WaitingGroup> waiting;  // longest first
  int64_t unplaced = 0;
  // Short of what, by group: how many allocations lack it on their nearest node.
  std::map<std::string, int64_t> lacking;
  Amounts amounts;
  int64_t cores = 0, disk_mb = 0;
  NodeOffer offer;           // count 0: none would help
  int64_t fits_now = 0;      // of `unplaced`: Nomad has not looked again yet
  int64_t without_node = 0;  // of `unplaced`: kept off by something that more nodes do not change
  std::vector<std::string> warnings;
};

Demand SumDemand(const std::vector<Explanation>& explanations, const std::vector<Job>& jobs,
                 const Cluster& cluster);

}  // namespace jenkins_agent::nomad
