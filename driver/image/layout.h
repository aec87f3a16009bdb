// An OCI image layout (image-spec, image-layout.md): a directory with oci-layout, index.json and
// blobs/sha256/<hex>, as skopeo, umoci and buildah write it.
#pragma once

#include <memory>
#include <string>

#include "driver/image/source.h"

namespace jenkins_agent {

// `name`: the annotation org.opencontainers.image.ref.name to look for; empty: the layout's only
// image. Errors name the directory.
std::unique_ptr<ImageSource> MakeLayoutSource(const std::string& dir, const std::string& name);

}  // namespace jenkins_agent
