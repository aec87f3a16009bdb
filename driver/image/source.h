// Where an image comes from: a registry, or a layout on disk.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/image/byte_source.h"
#include "driver/image/manifest.h"

namespace jenkins_agent {

struct FetchedDocument {
  std::string text;
  std::string content_type;  // as the server says; empty: nobody did
};

// Its functions may be called from several threads at once.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // The document that the image's name means: an index or a manifest.
  virtual absl::StatusOr<FetchedDocument> Root() = 0;
  // A document by its digest, unchecked.
  virtual absl::StatusOr<FetchedDocument> Document(const Descriptor& descriptor) = 0;
  // A blob, unchecked, from the beginning. Whoever finds it damaged asks again with the next
  // `attempt`; NotFound: there is no further place to get it from.
  virtual absl::StatusOr<std::unique_ptr<ByteSource>> Blob(const Descriptor& descriptor,
                                                           int attempt) = 0;
};

}  // namespace jenkins_agent
