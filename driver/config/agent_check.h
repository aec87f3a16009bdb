// Whether an agent's options can work. Pure.
#pragma once

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// `agent` is complete: the job's block, the task's environment and the defaults, the secret itself
// and no longer its file. A launcher that refuses its options exits with 0 (jenkins-agent.md 1.1,
// 1.4), which would look like success; so what it forbids is refused here. Errors begin with the
// option's path ("agent.url: ...") and hold neither secret nor password.
absl::Status CheckAgent(const pb::AgentSpec& agent);

}  // namespace jenkins_agent
