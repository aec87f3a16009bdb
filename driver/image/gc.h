// Which images go. Pure: the caller measures, asks and removes.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "driver/image/store.h"

namespace jenkins_agent {

// Images stay until space is wanted: after `delay` one may go, and goes when the file system is
// fuller than `high_percent`, has less than `min_free` bytes, the store more than `max_bytes`, or
// nobody used the image for `max_age`.
struct GcPolicy {
  std::chrono::seconds delay{180};
  std::chrono::seconds max_age{0};  // 0: never for its age
  int high_percent = 85;            // of the file system; collected down to low_percent
  int low_percent = 75;
  int64_t min_free = int64_t{5} << 30;
  int64_t max_bytes = 0;   // of all layers; 0: no limit
  size_t keep_recent = 2;  // the images used last are not collected for space
};

// InvalidArgument names what contradicts itself.
absl::Status CheckGcPolicy(const GcPolicy& policy);

struct GcChoice {
  std::vector<Digest> images;  // in the order of removal
  int64_t freed = 0;           // bytes of the layers that nobody has then
  int64_t missing = 0;         // bytes that should have been freed beyond that
};

// `kept`: images in use or pinned. The least recently used go first; a layer's bytes are freed when
// its last image goes.
GcChoice ChooseImages(const GcPolicy& policy, std::vector<StoredImage> images,
                      const std::set<Digest>& kept, const DiskSpace& disk, int64_t now_s);

// Bytes of all layers, each counted once.
int64_t StoreBytes(const std::vector<StoredImage>& images);

}  // namespace jenkins_agent
