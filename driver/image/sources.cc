#include "driver/image/sources.h"

#include "driver/image/layout.h"

namespace jenkins_agent {

absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const ImageName& name,
                                                        const RegistryOptions& registry) {
  if (name.transport == Transport::kLayout) return MakeLayoutSource(name.path, name.part);
  return MakeRegistrySource(name.reference, registry);
}

}  // namespace jenkins_agent
