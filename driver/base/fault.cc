#include "driver/base/fault.h"

#ifdef FAULT_POINTS

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

namespace jenkins_agent {
namespace {

constexpr int kExitFault = 99;

// Written once, before anything else runs.
std::string& Kept() {
  static std::string kept;
  return kept;
}

}  // namespace

void FaultPoint(FaultName point) {
  const char* variable = ::getenv(kFaultVariable);
  const std::string_view armed = variable != nullptr ? std::string_view(variable) : Kept();
  if (armed != point.name()) return;
  ::kill(::getpid(), SIGKILL);
  ::_exit(kExitFault);  // pid 1 of a namespace is out of reach of its own signals
}

void KeepFaultVariable() {
  if (const char* armed = ::getenv(kFaultVariable); armed != nullptr) Kept() = armed;
}

std::vector<std::string> FaultEnvironment() {
  const char* armed = ::getenv(kFaultVariable);
  if (armed == nullptr) return {};
  return {std::string(kFaultVariable) + "=" + armed};
}

}  // namespace jenkins_agent

#endif
