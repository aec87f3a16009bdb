// What would let a group be placed, in numbers. Pure; whether Nomad agrees is for plan_check.h.
#pragma once

#include <string>
#include <vector>

#include "driver/nomad/assess.h"
#include "driver/nomad/explanation.h"

namespace jenkins_agent::nomad {

inline constexpr size_t kMaxRemedies = 8;

// `nodes` as AssessNode made them, nearest first. Best first: what is least of a change.
std::vector<Remedy> FindRemedies(const Job& job, const Group& group,
                                 const std::vector<NodeReport>& nodes, int64_t unplaced,
                                 const Ledger& ledger);

// "nomad job eval JOB", with `option` such as "-force-reschedule".
std::string EvaluateCommand(const std::string& job, const std::string& name_space,
                            const std::string& option = "");

// For a group that fits by what can be seen and still waits: what makes Nomad look at it again.
Remedy LookAgain(const Job& job, const Group& group);

}  // namespace jenkins_agent::nomad
