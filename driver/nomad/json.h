// Nomad's JSON to values. Strict about shape at the top, lenient inside: null and what is missing
// are the zero value, unknown keys are skipped; so an older or newer Nomad is understood.
//
// Errors: InvalidArgument, with where the text stops being JSON; never its contents.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/nomad/explain.h"
#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// GET /v1/nodes?resources=true
absl::StatusOr<std::vector<Node>> ParseNodes(absl::string_view json);
// GET /v1/node/ID: adds the node's own page to what the list told.
absl::Status AddNodeDetails(absl::string_view json, Node& node);
// GET /v1/allocations?resources=true: those that hold something.
absl::StatusOr<std::vector<Allocation>> ParseAllocations(absl::string_view json);
// GET /v1/job/ID, or the value of "Job" in a job file.
absl::StatusOr<Job> ParseJob(absl::string_view json);
// GET /v1/job/ID/evaluations, /v1/evaluations
absl::StatusOr<std::vector<Evaluation>> ParseEvaluations(absl::string_view json);
// GET /v1/evaluation/ID
absl::StatusOr<Evaluation> ParseEvaluation(absl::string_view json);
// GET /v1/job/ID/summary: Queued by group.
absl::StatusOr<std::map<std::string, int64_t>> ParseQueued(absl::string_view json);
// GET /v1/job/ID/allocations: how many of this version of the job failed and are not replaced, by
// group.
absl::StatusOr<std::map<std::string, int64_t>> ParseGivenUp(absl::string_view json,
                                                            uint64_t version);
// GET /v1/operator/scheduler/configuration
absl::StatusOr<SchedulerSettings> ParseSettings(absl::string_view json);
// PUT /v1/job/ID/plan: what the scheduler would fail to place, by group.
absl::StatusOr<std::map<std::string, Metric>> ParsePlan(absl::string_view json);
// GET /v1/client/stats and /v1/client/allocation/ID/stats
absl::StatusOr<NodeUse> ParseHostStats(absl::string_view json);
absl::StatusOr<NodeUse> ParseAllocationStats(absl::string_view json);
// GET /v1/acl/policy/NAME: may its holder read the jobs of every namespace?
absl::StatusOr<bool> PolicyReadsEveryNamespace(absl::string_view json);
// GET /v1/acl/token/self
struct TokenFacts {
  bool management = false;
  std::vector<std::string> policies;
};
absl::StatusOr<TokenFacts> ParseToken(absl::string_view json);

}  // namespace jenkins_agent::nomad
