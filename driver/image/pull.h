// A pull: documents, then all missing layers at once, each from the network to its directory in one
// pass, then one publication. What is here already is neither asked for nor unpacked.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "driver/image/source.h"
#include "driver/image/store.h"

namespace jenkins_agent {

inline constexpr int kMaxStreams = 6;  // layers at once, each a thread and a connection
inline constexpr int kMaxIndexDepth = 3;
inline constexpr int64_t kMaxImageBytes = int64_t{20} << 30;  // unpacked
inline constexpr int64_t kMaxImageEntries = 2'000'000;

struct PullProgress {
  int layers = 0;         // of the image
  int cached_layers = 0;  // here before
  int done_layers = 0;    // unpacked
  int64_t bytes = 0;      // to be fetched
  int64_t done_bytes = 0;
};

struct PullResult {
  Digest manifest;
  PullProgress progress;
  bool cached = false;  // the image was here; nothing but its name was looked up
};

struct PullRequest {
  std::string name;  // the reference under which the image is kept
  Digest digest;     // what the root document must have; empty: whatever the name means now
  bool sync = true;  // false: published before it is on the disk, for who can lose it
  // Called once the manifest and its config are here, then by the pull's threads, one at a time,
  // not more often than every 200 ms; may be empty.
  std::function<void(const PullProgress&)> on_progress;
};

// Errors name the layer or document. ResourceExhausted: no space, with the numbers. After an error
// nothing of the pull is left.
absl::StatusOr<PullResult> Pull(const Store& store, ImageSource& source,
                                const PullRequest& request);

}  // namespace jenkins_agent
