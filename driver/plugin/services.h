// go-plugin's own services. Each belongs to Serve and is thread-safe.
#pragma once

#include <functional>

#include "proto/health.grpc.pb.h"
#include "proto/plugin.grpc.pb.h"

namespace jenkins_agent {

// Healthy under the one name that go-plugin asks for, as long as it can answer.
class HealthService final : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;
};

// Answers Shutdown at once; `on_shutdown` must not block and may be called more than once.
class ControllerService final : public plugin::GRPCController::Service {
 public:
  explicit ControllerService(std::function<void()> on_shutdown)
      : on_shutdown_(std::move(on_shutdown)) {}
  grpc::Status Shutdown(grpc::ServerContext* context, const plugin::Empty* request,
                        plugin::Empty* response) override;

 private:
  const std::function<void()> on_shutdown_;
};

// Streams that the host opens and that carry nothing: they stay open until it cancels them. Ended
// by us they would come back at once, or leave an error in the agent's log.
class StdioService final
    : public plugin::GRPCStdio::WithCallbackMethod_StreamStdio<plugin::GRPCStdio::Service> {
 public:
  grpc::ServerWriteReactor<plugin::StdioData>* StreamStdio(
      grpc::CallbackServerContext* context, const google::protobuf::Empty* request) override;
};

class BrokerService final
    : public plugin::GRPCBroker::WithCallbackMethod_StartStream<plugin::GRPCBroker::Service> {
 public:
  grpc::ServerBidiReactor<plugin::ConnInfo, plugin::ConnInfo>* StartStream(
      grpc::CallbackServerContext* context) override;
};

}  // namespace jenkins_agent
