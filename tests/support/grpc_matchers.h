// GoogleTest for grpc::Status.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

namespace jenkins_agent {

MATCHER(Succeeded, "succeeded") {
  *result_listener << arg.error_code() << " " << arg.error_message();
  return arg.ok();
}

// An error for an operator: not one that Nomad takes for the plugin's death.
MATCHER_P(FailedWith, message, "") {
  *result_listener << arg.error_code() << " " << arg.error_message();
  return !arg.ok() && arg.error_code() != grpc::StatusCode::UNAVAILABLE &&
         arg.error_code() != grpc::StatusCode::CANCELLED &&
         testing::ExplainMatchResult(message, arg.error_message(), result_listener);
}

}  // namespace jenkins_agent
