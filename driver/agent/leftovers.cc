#include "driver/agent/leftovers.h"

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent {

bool OutlivesItsAgent(absl::string_view environment) {
  for (absl::string_view variable : absl::StrSplit(environment, '\0')) {
    if (absl::StartsWith(variable, "JENKINS_SERVER_COOKIE=durable-") ||
        variable == "JENKINS_SERVER_COOKIE=please-do-not-kill-me" ||
        variable == "JENKINS_NODE_COOKIE=dontKillMe" || variable == "BUILD_ID=dontKillMe") {
      return true;
    }
  }
  return false;
}

}  // namespace jenkins_agent
