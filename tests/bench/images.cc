// Pulls of an image beside podman's and containerd's (images.py), and what a kept image costs a
// start.
#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/base/subprocess.h"
#include "tests/bench/fleet.h"
#include "tests/bench/scenarios.h"
#include "tests/bench/script.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent::bench {
namespace {

constexpr int kWarmUps = 3;
constexpr int kStarts = 30;
constexpr double kMostMs = 10;  // that an image adds to a start, and a removal to any
constexpr char kLarge[] = "rootfs:/usr/include";  // thousands of files, on each node that builds

std::vector<std::string> ImagesCommand(const Fleet& fleet, std::vector<std::string> words) {
  words.insert(words.begin(), {DRIVER_FILE, "images", "--store", fleet.state_dir() + "/images"});
  return words;
}

absl::StatusOr<Subprocess> StartCommand(const Fleet& fleet, std::vector<std::string> words) {
  ::jenkins_agent::StartOptions options;
  options.env = {"PATH=/usr/bin:/bin"};
  options.stderr_fd = STDERR_FILENO;
  return Start(ImagesCommand(fleet, std::move(words)), options);
}

absl::Status AwaitCommand(const Subprocess& command) {
  ASSIGN_OR_RETURN(const ExitStatus end, Wait(command));
  if (end.exit_code == 0) return absl::OkStatus();
  return absl::InternalError("a command failed (see above)");
}

absl::Status RunCommand(const Fleet& fleet, std::vector<std::string> words) {
  ASSIGN_OR_RETURN(const Subprocess command, StartCommand(fleet, std::move(words)));
  return AwaitCommand(command);
}

bool HasEnded(const Subprocess& process) {
  pollfd end = {process.pidfd.get(), POLLIN, 0};
  return ::poll(&end, 1, 0) > 0;
}

// Alternated, so that a busy machine hits both alike.
absl::Status BenchKeptImage(Fleet& fleet, const std::string& image, Report& report) {
  std::vector<double> on_image, on_host;
  for (int run = -kWarmUps; run < kStarts; ++run) {
    ASSIGN_OR_RETURN(const Sample kept, fleet.MeasureStart(false, image));
    ASSIGN_OR_RETURN(const Sample host, fleet.MeasureStart(false));
    if (run < 0) continue;
    on_image.push_back(kept.answered_ms);
    on_host.push_back(host.answered_ms);
  }
  const double added = Median(on_image) - Median(on_host);
  report.Add({"image_start_median_ms", absl::StrCat("kept image, n ", kStarts), Median(on_image),
              "the host's programs", Median(on_host), absl::StrCat("<= ", kMostMs, " ms more"),
              added <= kMostMs});
  return absl::OkStatus();
}

// Starts for as long as a large image is being removed, beside as many without that.
absl::Status BenchRemoval(Fleet& fleet, const std::string& image, Report& report) {
  RETURN_IF_ERROR(RunCommand(fleet, {"pull", kLarge}));
  ASSIGN_OR_RETURN(const Subprocess removal, StartCommand(fleet, {"rm", kLarge}));
  std::vector<double> beside, alone;
  while (!HasEnded(removal)) {
    ASSIGN_OR_RETURN(const Sample sample, fleet.MeasureStart(false, image));
    beside.push_back(sample.answered_ms);
  }
  RETURN_IF_ERROR(AwaitCommand(removal));
  for (size_t i = 0; i < beside.size(); ++i) {
    ASSIGN_OR_RETURN(const Sample sample, fleet.MeasureStart(false, image));
    alone.push_back(sample.answered_ms);
  }
  const std::string text =
      absl::StrCat("while an image of /usr/include is removed, n ", beside.size());
  report.Add({"image_start_beside_rm_median_ms", text, Median(beside), "no removal", Median(alone),
              absl::StrCat("<= ", kMostMs, " ms more"), Median(beside) - Median(alone) <= kMostMs});
  report.Add({"image_start_beside_rm_longest_ms", text, Percentile(beside, 1), "no removal",
              Percentile(alone, 1)});
  return absl::OkStatus();
}

absl::Status BenchStarts(Report& report) {
  const TempDir dir;
  const TempDir rootfs;
  RETURN_IF_ERROR(WriteFileAtomic(rootfs.path() + "/file", "of the image\n", 0644));
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, Fleet::Launch(dir.path(), {}));
  const std::string image = "rootfs:" + rootfs.path();
  RETURN_IF_ERROR(RunCommand(*fleet, {"pull", image}));
  RETURN_IF_ERROR(BenchKeptImage(*fleet, image, report));
  return BenchRemoval(*fleet, image, report);
}

}  // namespace

absl::Status BenchImages(const ImagesOptions& options, Report& report) {
  RETURN_IF_ERROR(BenchStarts(report), "starts on images");
  ::setenv("DRIVER_BINARY", DRIVER_FILE, 1);
  return Annotate(RunScript(absl::StrCat("'", IMAGES_SCRIPT, "' --runs ", options.runs), report),
                  "images.py");
}

}  // namespace jenkins_agent::bench
