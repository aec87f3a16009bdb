// A real Nomad agent with our driver beside its own. nomad.py, which has the end-to-end tests'
// Nomad at hand, measures and judges; here its lines become figures of the report.
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/scenarios.h"
#include "tests/bench/script.h"

namespace jenkins_agent::bench {

absl::Status BenchNomad(const NomadOptions& options, Report& report) {
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  ::setenv("PROBE_FILE", PROBE_FILE, 1);
  return Annotate(RunScript(absl::StrCat("'", NOMAD_SCRIPT, "' --runs ", options.runs, " --rounds ",
                                         options.rounds),
                            report),
                  "nomad.py");
}

}  // namespace jenkins_agent::bench
