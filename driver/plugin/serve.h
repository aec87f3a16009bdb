// go-plugin's server side: a gRPC server on a unix socket of its own, announced on stdout, until
// the host asks for the end.
//
// The order in main: PrepareProcess, CheckLaunchEnvironment (launch.h), build the services, Serve.
#pragma once

#include <grpcpp/impl/codegen/service_type.h>

#include <functional>
#include <vector>

#include "absl/status/status.h"

namespace jenkins_agent {

// Serves `services` (the caller's, alive until Serve returns) together with go-plugin's own until
// the host calls Shutdown. Losing the host's connection, its pipes or the host itself ends nothing.
//
// `on_shutdown` is called once, before calls in flight are cancelled: let go of what blocks them.
// After Shutdown the process has kEndLimit until it is ended by force, from where ever it is: the
// host kills it a little later anyway. So main may end in order, but cannot hang.
absl::Status Serve(const std::vector<grpc::Service*>& services,
                   const std::function<void()>& on_shutdown = {});

}  // namespace jenkins_agent
