// Images that come without a manifest: one is made for them, so that they go the way of all others,
// with the same checks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/image/source.h"

namespace jenkins_agent {

struct LocalLayer {
  Digest digest;     // of the bytes that `open` gives
  int64_t size = 0;  // their number
  std::function<absl::StatusOr<std::unique_ptr<ByteSource>>()> open;  // from the beginning
};

// The same config and layers make the same manifest, and so the same image.
std::unique_ptr<ImageSource> MakeSourceWithManifest(const std::string& config,
                                                    std::vector<LocalLayer> layers);

}  // namespace jenkins_agent
