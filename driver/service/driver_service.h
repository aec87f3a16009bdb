// The Driver service: Nomad's protocol on one side, TaskStore on the other. Adapters only; what a
// call means is decided in driver/task.
//
// Calls that last as long as a task (WaitTask, TaskStats), a command (ExecTask, ExecTaskStreaming)
// or the plugin (Fingerprint, TaskEvents) are callback reactors and hold no thread. The others run
// on gRPC's threads and are bounded.
#pragma once

#include "driver/service/runtime.h"
#include "proto/nomad_driver.grpc.pb.h"

namespace jenkins_agent {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

using DriverServiceBase = nomad::Driver::WithCallbackMethod_Fingerprint<
    nomad::Driver::WithCallbackMethod_TaskEvents<nomad::Driver::WithCallbackMethod_TaskStats<
        nomad::Driver::WithCallbackMethod_WaitTask<nomad::Driver::WithCallbackMethod_ExecTask<
            nomad::Driver::WithCallbackMethod_ExecTaskStreaming<nomad::Driver::Service>>>>>>;

class DriverService final : public DriverServiceBase {
 public:
  // `runtime` outlives the service.
  explicit DriverService(Runtime* runtime) : runtime_(runtime) {}

  grpc::Status Init(grpc::ServerContext*, const nomad::InitRequest*, nomad::InitResponse*) override;
  grpc::Status TaskConfigSchema(grpc::ServerContext*, const nomad::TaskConfigSchemaRequest*,
                                nomad::TaskConfigSchemaResponse* response) override;
  grpc::Status Capabilities(grpc::ServerContext*, const nomad::CapabilitiesRequest*,
                            nomad::CapabilitiesResponse* response) override;
  grpc::ServerWriteReactor<nomad::FingerprintResponse>* Fingerprint(
      grpc::CallbackServerContext*, const nomad::FingerprintRequest*) override;
  grpc::Status RecoverTask(grpc::ServerContext*, const nomad::RecoverTaskRequest* request,
                           nomad::RecoverTaskResponse*) override;
  grpc::Status StartTask(grpc::ServerContext*, const nomad::StartTaskRequest* request,
                         nomad::StartTaskResponse* response) override;
  grpc::ServerUnaryReactor* WaitTask(grpc::CallbackServerContext*,
                                     const nomad::WaitTaskRequest* request,
                                     nomad::WaitTaskResponse* response) override;
  grpc::Status StopTask(grpc::ServerContext*, const nomad::StopTaskRequest* request,
                        nomad::StopTaskResponse*) override;
  grpc::Status DestroyTask(grpc::ServerContext*, const nomad::DestroyTaskRequest* request,
                           nomad::DestroyTaskResponse*) override;
  grpc::Status InspectTask(grpc::ServerContext*, const nomad::InspectTaskRequest* request,
                           nomad::InspectTaskResponse* response) override;
  grpc::ServerWriteReactor<nomad::TaskStatsResponse>* TaskStats(
      grpc::CallbackServerContext*, const nomad::TaskStatsRequest* request) override;
  grpc::ServerWriteReactor<nomad::DriverTaskEvent>* TaskEvents(
      grpc::CallbackServerContext*, const nomad::TaskEventsRequest*) override;
  grpc::Status Shutdown(grpc::ServerContext*, const nomad::ShutdownRequest*,
                        nomad::ShutdownResponse*) override;
  grpc::Status SignalTask(grpc::ServerContext*, const nomad::SignalTaskRequest* request,
                          nomad::SignalTaskResponse*) override;
  grpc::ServerUnaryReactor* ExecTask(grpc::CallbackServerContext*,
                                     const nomad::ExecTaskRequest* request,
                                     nomad::ExecTaskResponse* response) override;
  grpc::ServerBidiReactor<nomad::ExecTaskStreamingRequest, nomad::ExecTaskStreamingResponse>*
  ExecTaskStreaming(grpc::CallbackServerContext*) override;
  grpc::Status CreateNetwork(grpc::ServerContext*, const nomad::CreateNetworkRequest*,
                             nomad::CreateNetworkResponse*) override;
  grpc::Status DestroyNetwork(grpc::ServerContext*, const nomad::DestroyNetworkRequest*,
                              nomad::DestroyNetworkResponse*) override;

 private:
  absl::StatusOr<std::shared_ptr<Task>> FindTask(const std::string& task_id);

  Runtime* const runtime_;
};

}  // namespace jenkins_agent
