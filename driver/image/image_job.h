// What the image worker (`tools image-pull`, tools/image_worker.h) is asked, and what it answers:
// JSON lines on pipes. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/image/credentials.h"
#include "driver/image/pull.h"

namespace jenkins_agent {

inline constexpr size_t kMaxImageLineBytes = 64 << 10;

struct ImageJob {
  std::string store;                       // absolute
  std::string image;                       // as ParseImageName takes it, local paths absolute
  bool plain_http = false;                 // no TLS at this registry
  std::string ca_file;                     // PEM, instead of the system's certificates
  std::vector<std::string> mirrors;        // "https://host[:port]"
  std::optional<Credentials> credentials;  // the job's own; the others are then not looked at
  std::string auth_file;                   // docker's config.json; empty: none
  std::string auth_helper;                 // docker-credential-<this> if the file knows nothing
  bool sync = true;  // false: not synced to the disk, a power cut may damage the image
};

// One line with its newline. Holds the credentials: for a pipe, not for a log.
std::string ImageJobLine(const ImageJob& job);
// Unknown keys are ignored: an older worker understands a newer plugin. Errors quote no values.
absl::StatusOr<ImageJob> ParseImageJob(absl::string_view line);

// News while it pulls, then once the outcome.
struct ImageReport {
  bool finished = false;
  absl::Status status;  // of a finished pull; its code says what the caller can do
  PullResult result;    // `progress` alone until it is finished
};

std::string ImageReportLine(const ImageReport& report);
// InvalidArgument: nothing that a worker says.
absl::StatusOr<ImageReport> ParseImageReport(absl::string_view line);

}  // namespace jenkins_agent
