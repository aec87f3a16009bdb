// From an image's name to its source.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/image/image_name.h"
#include "driver/image/registry.h"
#include "driver/image/source.h"

namespace jenkins_agent {

// `registry` counts for names in registries only. Archives and root file systems are
// read once here; errors name the path.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const ImageName& name,
                                                        const RegistryOptions& registry);

}  // namespace jenkins_agent
