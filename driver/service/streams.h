// The endless calls of the Driver service as gRPC reactors. Each deletes itself in OnDone, which
// comes after the client cancelled or the plugin shuts down; none of them ends by itself except
// TaskStats, with its task.
#pragma once

#include <chrono>
#include <memory>

#include "driver/service/runtime.h"
#include "driver/task/task.h"
#include "proto/nomad_driver.grpc.pb.h"

namespace jenkins_agent {

// First answer at once, then what FingerprintPace lets pass of a look each `period`, and of one at
// the images when the store has changed. The looks are on the runtime's worker: they read many
// files, and the first one starts the tools program.
inline constexpr std::chrono::milliseconds kFingerprintPeriod = std::chrono::seconds(30);
grpc::ServerWriteReactor<hashicorp::nomad::plugins::drivers::proto::FingerprintResponse>*
NewFingerprintStream(Runtime* runtime, std::chrono::milliseconds period = kFingerprintPeriod);

grpc::ServerWriteReactor<hashicorp::nomad::plugins::drivers::proto::DriverTaskEvent>*
NewTaskEventStream(Runtime* runtime);

// First sample at once, then one each `interval` (at least kMinStatsInterval), until the task ends.
inline constexpr std::chrono::milliseconds kMinStatsInterval{100};
grpc::ServerWriteReactor<hashicorp::nomad::plugins::drivers::proto::TaskStatsResponse>*
NewTaskStatsStream(Runtime* runtime, EventLoop* loop, const std::shared_ptr<Task>& task,
                   std::chrono::milliseconds interval);

// A stream that fails at once.
template <typename Response>
class FailedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit FailedStream(grpc::Status status) { this->Finish(std::move(status)); }
  void OnDone() override { delete this; }
};

}  // namespace jenkins_agent
