// What a job or an operator writes to name an image: a registry's name (reference.h), or a place on
// this node behind one of the transports of containers-transports(5).
//   oci:DIRECTORY[:NAME]            an OCI layout
//   oci-archive:FILE[:NAME]         a tar of one
//   docker-archive:FILE[:NAME]      what `docker save` writes
//   rootfs:PATH                     a root file system: a directory, or a tar, compressed or not
// As there, FILE and DIRECTORY hold no ':'.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/image/reference.h"

namespace jenkins_agent {

enum class Transport { kRegistry, kLayout, kLayoutArchive, kDockerArchive, kRootfs };

struct ImageName {
  Transport transport = Transport::kRegistry;
  Reference reference;  // kRegistry
  std::string path;     // the others: absolute, without "." and ".."
  std::string part;     // which image of a layout or archive; empty: its only one

  // Under which the store keeps it; what ParseImageName reads again to the same value.
  std::string ToString() const;
  bool operator==(const ImageName&) const = default;
};

// Relative paths are below `directory`, which is absolute. InvalidArgument, naming what is wrong.
absl::StatusOr<ImageName> ParseImageName(absl::string_view name,
                                         const std::string& directory = "/");

}  // namespace jenkins_agent
