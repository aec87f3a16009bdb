#include "driver/image/sources.h"

#include <utility>

#include "driver/base/status.h"
#include "driver/image/docker_archive.h"
#include "driver/image/image_files.h"
#include "driver/image/layout.h"
#include "driver/image/rootfs.h"

namespace jenkins_agent {

absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const ImageName& name,
                                                        const RegistryOptions& registry) {
  std::unique_ptr<ImageFiles> files;
  switch (name.transport) {
    case Transport::kLayout: {
      ASSIGN_OR_RETURN(files, OpenDirectoryFiles(name.path), "layout");
      return MakeLayoutSource(std::move(files), name.path, name.part);
    }
    case Transport::kLayoutArchive: {
      ASSIGN_OR_RETURN(files, OpenArchiveFiles(name.path));
      return MakeLayoutSource(std::move(files), name.path, name.part);
    }
    case Transport::kDockerArchive: {
      ASSIGN_OR_RETURN(files, OpenArchiveFiles(name.path));
      return OpenDockerArchive(std::move(files), name.path, name.part);
    }
    case Transport::kRootfs:
      return OpenRootfs(name.path);
    case Transport::kRegistry:
      break;
  }
  return MakeRegistrySource(name.reference, registry);
}

}  // namespace jenkins_agent
