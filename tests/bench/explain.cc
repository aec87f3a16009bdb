// The command `explain` on a large cluster that explain.py makes up and serves.
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/scenarios.h"
#include "tests/bench/script.h"

namespace jenkins_agent::bench {

absl::Status BenchExplain(const ExplainOptions& options, Report& report) {
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  return Annotate(RunScript(absl::StrCat("'", EXPLAIN_SCRIPT, "' --runs ", options.runs,
                                         " --nodes ", options.nodes),
                            report),
                  "explain.py");
}

}  // namespace jenkins_agent::bench
