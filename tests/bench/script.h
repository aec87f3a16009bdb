// Runs a script that measures, and takes its figures.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace jenkins_agent::bench {

// `command`: a Python file and its arguments, as a shell reads them.
absl::Status RunScript(const std::string& command, Report& report);

}  // namespace jenkins_agent::bench
