// A plain root file system as an image of one layer: a directory, or a tar, compressed or not. Its
// config says this node's platform and nothing else.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/image/source.h"

namespace jenkins_agent {

// Nobody has said its digests: it is read once for them here, and must be the same when it is read
// again to be unpacked (DataLoss). Errors name the path.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenRootfs(const std::string& path);

}  // namespace jenkins_agent
