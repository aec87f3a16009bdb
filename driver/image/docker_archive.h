// What `docker save` writes (moby, image/tarexport): manifest.json with the paths of each image's
// config and layers. docker from 25 on adds an OCI layout, whose blobs those paths then name.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/image/image_files.h"
#include "driver/image/source.h"

namespace jenkins_agent {

// One image of manifest.json.
struct DockerArchiveEntry {
  std::string config;               // path in the archive
  std::vector<std::string> names;   // repository:tag
  std::vector<std::string> layers;  // paths, lowest first
};

// InvalidArgument: no such document.
absl::StatusOr<std::vector<DockerArchiveEntry>> ParseDockerArchive(absl::string_view text);
// The entry that `name` means; empty: the only one. NotFound lists what there is.
absl::StatusOr<DockerArchiveEntry> FindInDockerArchive(
    const std::vector<DockerArchiveEntry>& entries, const std::string& name);

// `place`: its path, for errors. Compressed layers are read once to know their digests.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenDockerArchive(std::unique_ptr<ImageFiles> files,
                                                               const std::string& place,
                                                               const std::string& name);

}  // namespace jenkins_agent
