// An OCI image layout (image-spec, image-layout.md): oci-layout, index.json and blobs/sha256/<hex>,
// as skopeo, umoci and buildah write it, in a directory or a tar.
#pragma once

#include <memory>
#include <string>

#include "driver/image/image_files.h"
#include "driver/image/source.h"

namespace jenkins_agent {

// `place`: its path, for errors. `name`: the annotation org.opencontainers.image.ref.name to look
// for; empty: the layout's only image.
std::unique_ptr<ImageSource> MakeLayoutSource(std::unique_ptr<ImageFiles> files,
                                              const std::string& place, const std::string& name);

}  // namespace jenkins_agent
