#include "driver/service/status_map.h"

#include <string>

#include "driver/base/recoverable.h"
#include "proto/nomad_structs.pb.h"

namespace jenkins_agent {
namespace {

namespace structs = hashicorp::nomad::plugins::shared::structs;

// The message travels in HTTP/2 headers, twice when recoverable, and percent-encoded.
constexpr size_t kMaxMessageBytes = 2000;

// Cut at the start of a UTF-8 character.
std::string Shorten(std::string message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t end = kMaxMessageBytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  message.resize(end);
  return message + "...";
}

grpc::StatusCode ToGrpcCode(absl::StatusCode code) {
  if (code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kCancelled) {
    return grpc::StatusCode::UNKNOWN;
  }
  return static_cast<grpc::StatusCode>(code);  // both have the numbers of google.rpc.Code
}

// Nomad's client takes the status from these bytes when they are there, and only if the code in
// them is the call's own.
std::string RecoverableDetails(grpc::StatusCode code, const std::string& message) {
  structs::RecoverableError recoverable;
  recoverable.set_recoverable(true);
  structs::RpcStatus details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(recoverable);
  return details.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = Shorten(std::string(status.message()));
  if (IsRecoverable(status)) {
    constexpr grpc::StatusCode kCode = grpc::StatusCode::FAILED_PRECONDITION;
    return {kCode, message, RecoverableDetails(kCode, message)};
  }
  return {ToGrpcCode(status.code()), message};
}

}  // namespace jenkins_agent
