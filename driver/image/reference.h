// Names of images in registries, as the field writes them:
//   [docker://][host[:port]/]repository[:tag][@sha256:hex]
// The first part is a host only if it holds '.' or ':' or is "localhost"; else the host is
// docker.io, where a name of one part lies below "library/" (docker's rule).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/image/digest.h"

namespace jenkins_agent {

inline constexpr size_t kMaxRepositoryBytes = 255;

struct Reference {
  std::string host;        // "docker.io", "registry.example:5000", "[::1]:5000"
  std::string repository;  // "library/debian"
  std::string tag;         // empty only with a digest, which then alone decides
  Digest digest;           // may be empty

  // What Parse reads again to the same value: host and tag or digest always written.
  std::string ToString() const;
  // The last part of a manifest's path: the digest, else the tag.
  std::string Target() const { return digest.empty() ? tag : digest.ToString(); }
  bool operator==(const Reference&) const = default;
};

// Without tag and digest the tag is "latest"; beside a digest the tag is dropped.
// InvalidArgument, naming the part that is wrong.
absl::StatusOr<Reference> ParseReference(absl::string_view name);

// Where a registry answers: docker.io does at registry-1.docker.io.
std::string ApiHost(absl::string_view host);

}  // namespace jenkins_agent
