// Pulls of an image beside podman's and containerd's: images.py.
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "tests/bench/scenarios.h"
#include "tests/bench/script.h"

namespace jenkins_agent::bench {

absl::Status BenchImages(const ImagesOptions& options, Report& report) {
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  return Annotate(RunScript(absl::StrCat("'", IMAGES_SCRIPT, "' --runs ", options.runs), report),
                  "images.py");
}

}  // namespace jenkins_agent::bench
