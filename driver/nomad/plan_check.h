// Lets Nomad's own scheduler try a remedy: PUT /v1/job/ID/plan changes nothing.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "driver/nomad/explanation.h"
#include "driver/nomad/reader.h"

namespace jenkins_agent::nomad {

// A job's JSON (as GET /v1/job/ID gives it) with the change, as the body of a plan. Pure.
// InvalidArgument: it is no job, or lacks what is to be changed.
absl::StatusOr<std::string> PlanBody(const std::string& job_json, const JobChange& change);

// Sets `check` of every remedy that is a change of the job. Without the right to plan each stays
// unchecked and says so.
void CheckRemedies(const Job& job, Reader& reader, GroupExplanation& group);

}  // namespace jenkins_agent::nomad
