// The only place where our errors become gRPC's.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace jenkins_agent {

// The same code and message, with what Nomad makes of codes in mind:
// * Unavailable and Cancelled mean "the plugin died" to the agent, so they become UNKNOWN.
// * MakeRecoverable's mark (driver/base/recoverable.h) becomes FAILED_PRECONDITION with the detail
//   that lets Nomad's restart policy decide.
// A very long message loses its end.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace jenkins_agent
