// The documents of an image: index (one entry per platform), manifest (config and layers), config
// (what to run and the layers' uncompressed digests). OCI image-spec 1.1 and docker's schema 2,
// which differ in media types only. All of it is hostile: parsed here into checked values.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/image/digest.h"

namespace jenkins_agent {

inline constexpr int64_t kMaxManifestBytes = 4 << 20;
inline constexpr int64_t kMaxConfigBytes = 8 << 20;
inline constexpr int64_t kMaxBlobBytes = int64_t{64} << 30;
inline constexpr size_t kMaxLayers = 128;  // overlayfs takes 500
inline constexpr size_t kMaxIndexEntries = 1024;

// What a client asks for, as an Accept header's value.
inline constexpr char kAcceptedManifests[] =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

// A piece of content: fetched by its digest, never longer than its size.
struct Descriptor {
  std::string media_type;
  Digest digest;
  int64_t size = 0;  // bytes
};

struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // "v8", "v3", or empty

  std::string ToString() const;  // "linux/arm64/v8"
};

struct IndexEntry {
  Descriptor manifest;
  Platform platform;  // empty texts: the entry says none
  std::string name;   // annotation org.opencontainers.image.ref.name, of layouts on disk
};

struct Index {
  std::vector<IndexEntry> entries;
};

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  // lowest first
};

struct ImageConfig {
  Platform platform;
  std::vector<std::string> env;  // KEY=VALUE
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::string user;      // "name", "uid", "name:group" or empty
  std::string work_dir;  // absolute, or empty
  std::vector<Digest> diff_ids;
};

// An index or a manifest. `content_type`: what the server called it, empty when nobody did.
// InvalidArgument: no such document, or one that is ambiguous. Unimplemented: docker's schema 1,
// or an artifact that is no image.
absl::StatusOr<std::variant<Index, Manifest>> ParseManifestDocument(absl::string_view text,
                                                                    absl::string_view content_type);
// InvalidArgument: no image's config.
absl::StatusOr<ImageConfig> ParseImageConfig(absl::string_view text);

// This node's: linux, amd64 and the processor's level (v1 to v4).
Platform HostPlatform();
// The first entry that runs on `host`. NotFound lists what there is.
absl::StatusOr<Descriptor> SelectPlatform(const Index& index, const Platform& host);
// Do manifest and config belong together, and does the image run on `host`?
absl::Status CheckImage(const Manifest& manifest, const ImageConfig& config, const Platform& host);

}  // namespace jenkins_agent
