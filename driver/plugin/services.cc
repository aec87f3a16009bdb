#include "driver/plugin/services.h"

#include <atomic>

namespace jenkins_agent {
namespace {

constexpr char kHealthName[] = "plugin";

class IdleWriter final : public grpc::ServerWriteReactor<plugin::StdioData> {
 public:
  void OnCancel() override { Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }
};

// Reads and forgets until the host closes its side or cancels; both may happen at once.
class IdleBroker final : public grpc::ServerBidiReactor<plugin::ConnInfo, plugin::ConnInfo> {
 public:
  IdleBroker() { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (ok) {
      StartRead(&request_);
    } else {
      FinishOnce(grpc::Status::OK);
    }
  }
  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void FinishOnce(const grpc::Status& status) {
    if (!finished_.exchange(true)) Finish(status);
  }

  plugin::ConnInfo request_;
  std::atomic<bool> finished_ = false;
};

}  // namespace

grpc::Status HealthService::Check(grpc::ServerContext*,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) {
  if (request->service() != kHealthName) {
    return {grpc::StatusCode::NOT_FOUND, "unknown service"};
  }
  response->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
  return grpc::Status::OK;
}

grpc::Status ControllerService::Shutdown(grpc::ServerContext*, const plugin::Empty*,
                                         plugin::Empty*) {
  on_shutdown_();
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<plugin::StdioData>* StdioService::StreamStdio(
    grpc::CallbackServerContext*, const google::protobuf::Empty*) {
  return new IdleWriter;
}

grpc::ServerBidiReactor<plugin::ConnInfo, plugin::ConnInfo>* BrokerService::StartStream(
    grpc::CallbackServerContext*) {
  return new IdleBroker;
}

}  // namespace jenkins_agent
