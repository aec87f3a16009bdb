// One node against one task group: what is asked, free and short, and what else keeps the group
// off. By the rules and in the order of Nomad's scheduler (scheduler/feasible/{feasible,rank}.go,
// nomad/structs/funcs.go AllocsFit), but with every reason, where Nomad stops at the first. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "driver/nomad/explanation.h"
#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// What one copy of a group asks for.
struct Ask {
  Amounts amounts;  // cores' MHz not included: it depends on the node
  int64_t cores = 0;
  int64_t disk_mb = 0;
  int64_t dynamic_ports = 0;
};
Ask AskOf(const Group& group);

// The allocations of a cluster by node, summed once. Keeps pointers into `cluster`, which stays as
// it is for the ledger's life.
class Ledger {
 public:
  struct Load {
    std::vector<const Allocation*> allocations;
    Amounts amounts;
    std::set<int> cores;
    int64_t disk_mb = 0;
  };

  explicit Ledger(const Cluster& cluster);
  const Cluster& cluster() const { return cluster_; }
  const Load& On(const Node& node) const;
  const Node* Find(const std::string& id) const;
  // Those of one job that hold something.
  const std::vector<const Allocation*>& Of(const std::string& name_space,
                                           const std::string& job) const;

 private:
  const Cluster& cluster_;
  absl::flat_hash_map<std::string, Load> loads_;
  absl::flat_hash_map<std::string, const Node*> nodes_;
  absl::flat_hash_map<std::string, std::vector<const Allocation*>> jobs_;
};

// MHz, MB and the like that the node offers to jobs: total - reserved.
int64_t AvailableCpu(const Node& node);
int64_t AvailableMemory(const Node& node);
int64_t AvailableDisk(const Node& node);

// What an allocation holds of a figure's resource.
int64_t HeldOf(const Figure& figure, const Allocation& allocation);

// How many more copies fit into what is free of cpu, cores, memory, disk and node_max_allocs.
int64_t Copies(const Ask& ask, const Node& node, const Ledger::Load& load);

NodeReport AssessNode(const Job& job, const Group& group, const Node& node, const Ledger& ledger);

}  // namespace jenkins_agent::nomad
