// ExecTask and ExecTaskStreaming as gRPC reactors over ExecSession. Each deletes itself in OnDone;
// a cancelled call kills what it runs.
#pragma once

#include "driver/service/runtime.h"
#include "proto/nomad_driver.grpc.pb.h"

namespace jenkins_agent {

// What a script check keeps of its output: the last bytes, as Nomad's own drivers do.
inline constexpr size_t kMaxExecOutputBytes = 4096;

// stderr is merged into stdout. DEADLINE_EXCEEDED when the request's timeout has passed.
grpc::ServerUnaryReactor* NewExecCall(
    Runtime* runtime, const hashicorp::nomad::plugins::drivers::proto::ExecTaskRequest& request,
    hashicorp::nomad::plugins::drivers::proto::ExecTaskResponse* response);

grpc::ServerBidiReactor<hashicorp::nomad::plugins::drivers::proto::ExecTaskStreamingRequest,
                        hashicorp::nomad::plugins::drivers::proto::ExecTaskStreamingResponse>*
NewExecStream(Runtime* runtime);

}  // namespace jenkins_agent
