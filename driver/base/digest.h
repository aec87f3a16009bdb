// SHA-256.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// 64 hex digits.
std::string Sha256Hex(absl::string_view data);

}  // namespace jenkins_agent
