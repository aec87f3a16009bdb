// Signal names as Nomad's users write them.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

// "SIGTERM", "TERM", "term" or "15" -> 15. An unknown name is an error that says which are known
// (Nomad's own drivers send SIGINT instead, which hides the mistake).
absl::StatusOr<int> ParseSignal(absl::string_view name);

}  // namespace jenkins_agent
