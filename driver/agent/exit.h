// What the end of an agent's JVM means: exit code, last phase and last words together. The code
// alone says nothing: both generations exit 0 on a usage error, and the old one exits 255 for a
// wrong secret as for a controller that is still starting. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "driver/agent/phases.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct ExitFacts {
  int wait_status = 0;  // as waitpid(2) gives it
  pb::AgentPhase phase = pb::PHASE_NONE;
  bool connected_in_this_launch = false;
  bool ever_connected = false;
  Refusal refusal = Refusal::kNone;
  Unreachable unreachable = Unreachable::kNone;
  bool usage_error = false;
  bool jvm_error = false;
  std::string last_error;  // the last SEVERE message, refusal or JVM-level line; may be empty
  std::vector<std::string> first_lines;
};

// Call after PhaseTracker::Finish().
ExitFacts MakeExitFacts(const PhaseTracker& tracker, int wait_status);

enum class ExitCause {
  kUsageError,   // the launcher did not understand its arguments (exit code 0!)
  kJvmError,     // this JDK cannot run this jar with these options
  kRefused,      // see ExitFacts::refusal
  kUnreachable,  // controller down, starting or not serving agents
  kOther,        // killed, crashed, out of memory, finished
};
ExitCause ClassifyExit(const ExitFacts& facts);

// 128 + signal when signalled.
int ExitCodeOf(int wait_status);

// One line for the operator:
//   "the controller refused agent 'linux-1': wrong secret (Unauthorized access)"
//   "the agent's JVM was killed by signal 9 (Killed) while connected"
std::string DescribeExit(const ExitFacts& facts, absl::string_view agent_name);
std::string DescribeRefusal(absl::string_view agent_name, Refusal refusal,
                            absl::string_view reason);

}  // namespace jenkins_agent
