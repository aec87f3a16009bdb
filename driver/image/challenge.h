// WWW-Authenticate as registries send it (RFC 9110, 11.6.1), and the tokens behind it. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

struct Challenge {
  std::string scheme;                             // in lower case: "basic", "bearer"
  std::map<std::string, std::string> parameters;  // names in lower case
};

// Of one header line, which may hold several; what is malformed ends the list.
std::vector<Challenge> ParseChallenges(absl::string_view header);

struct Token {
  std::string value;
  int64_t lifetime_s = 60;  // the default of docker's token specification
};
// The answer of a token server.
absl::StatusOr<Token> ParseToken(absl::string_view text);

}  // namespace jenkins_agent
