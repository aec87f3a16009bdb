// StartTask -> `Connected` of a real agent at a real controller on loopback: connect.py measures.
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/scenarios.h"
#include "tests/bench/script.h"

namespace jenkins_agent::bench {

absl::Status BenchConnect(const ConnectOptions& options, Report& report) {
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  return Annotate(RunScript(absl::StrCat("'", CONNECT_SCRIPT, "' --runs ", options.runs), report),
                  "connect.py");
}

}  // namespace jenkins_agent::bench
