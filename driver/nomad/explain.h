// Why the groups of a job wait: pure, from a cluster's state and what Nomad reported. The texts of
// the remedies are for the job's author and the operator; numbers are Nomad's units.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "driver/nomad/assess.h"
#include "driver/nomad/explanation.h"

namespace jenkins_agent::nomad {

struct Question {
  Job job;
  // The newest evaluation of the job that failed to place something; none: nothing is known to
  // wait.
  std::optional<Evaluation> evaluation;
  // Allocations that still have to be placed, by group (the job's summary); without it the
  // evaluation's count is used.
  std::map<std::string, int64_t> queued;
  // Allocations that failed and that Nomad does not replace, by group; for who asks about one job.
  std::map<std::string, int64_t> given_up = {};
  int64_t now_ns = 0;  // since 1970
};

// The evaluation that tells why a job waits: the blocked one, else the newest that failed to place
// something and is not older than a later success. A purged job's evaluations may lie beside it.
std::optional<Evaluation> PickEvaluation(const Job& job,
                                         const std::vector<Evaluation>& evaluations);

Explanation Explain(const Question& question, const Ledger& ledger);

// The nodes of a group whose constraints, node_max_allocs and the like can be known only from their
// own page.
bool NeedsNodeDetails(const Job& job);

// Adds what is used now to the figures and holders of a group, from the clients' own measurements.
struct NodeUse {
  std::optional<int64_t> cpu_mhz, memory_mb, disk_mb;
};
void AddUse(const std::map<std::string, NodeUse>& nodes,
            const std::map<std::string, NodeUse>& allocations, GroupExplanation& group);

}  // namespace jenkins_agent::nomad
