// How the workers that only ask get to the controller as the agent does.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "driver/base/status.h"
#include "driver/tools/http.h"
#include "driver/tools/privileges.h"

namespace jenkins_agent {

// The job's CA file is opened while the process may; then it is in the task's network and nobody,
// and for good. `Request`: AgentJarRequest or PreflightRequest.
template <typename Request>
absl::StatusOr<std::unique_ptr<HttpClient>> BecomeClientInTask(const Request& request,
                                                               int cancel_fd) {
  ASSIGN_OR_RETURN(std::string ca_pem, ReadCaFile(request.ca_file, request.root_pid));
  RETURN_IF_ERROR(EnterTaskNetwork(request.network_namespace, request.resolv_conf));
  RETURN_IF_ERROR(BecomeNobody());
  return HttpClient::Create(std::move(ca_pem), cancel_fd);
}

}  // namespace jenkins_agent
