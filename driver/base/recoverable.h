// The mark "Nomad may try again by its restart policy" on an error of StartTask. Without it Nomad
// fails the task at once. service/status_map puts it on the wire.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace jenkins_agent {

inline constexpr char kRecoverablePayload[] =
    "type.googleapis.com/hashicorp.nomad.plugins.shared.structs.RecoverableError";

inline absl::Status MakeRecoverable(absl::Status status) {
  status.SetPayload(kRecoverablePayload, absl::Cord("\x08\x01"));  // recoverable = true
  return status;
}

inline bool IsRecoverable(const absl::Status& status) {
  return status.GetPayload(kRecoverablePayload).has_value();
}

}  // namespace jenkins_agent
