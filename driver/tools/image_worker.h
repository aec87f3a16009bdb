// The image worker: one pull. The child that talks to registries and unpacks layers is confined
// (confine.h); the parent asks for credentials, watches, and removes what a child left that died.
//
// As a program, for the plugin: `tools image-pull`, started by base/subprocess.h with
//   stdin:  ImageJobLine() (image_job.h), then open for as long as the image is wanted: its end
//           cancels
//   stdout: lines for ParseImageReport(), the last one with `finished`
// Exit code 0 after an image, 1 after an error or when cancelled. Who starts two for the same image
// gets it right, and fetched twice.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "driver/image/image_job.h"

namespace jenkins_agent {

int RunImageWorker(int in_fd, int out_fd);

// The same within the calling program, which must be single-threaded and root. `cancel_fd`:
// whatever is to be read there, its end included, cancels (Cancelled); -1: nothing does. Errors
// have the image's name; `on_progress` is called some times a second.
absl::StatusOr<PullResult> PullConfined(
    const ImageJob& job, int cancel_fd,
    const std::function<void(const PullProgress&)>& on_progress);

}  // namespace jenkins_agent
