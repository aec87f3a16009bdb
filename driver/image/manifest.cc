#include "driver/image/manifest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

constexpr char kOciIndex[] = "application/vnd.oci.image.index.v1+json";
constexpr char kOciManifest[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kOciConfig[] = "application/vnd.oci.image.config.v1+json";
constexpr char kDockerList[] = "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr char kDockerManifest[] = "application/vnd.docker.distribution.manifest.v2+json";
constexpr char kDockerConfig[] = "application/vnd.docker.container.image.v1+json";
constexpr char kRefName[] = "org.opencontainers.image.ref.name";
constexpr size_t kShownBytes = 120;

std::string Shown(absl::string_view text) { return absl::CHexEscape(text.substr(0, kShownBytes)); }

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

bool IsManifestType(absl::string_view type) {
  return type == kOciIndex || type == kOciManifest || type == kDockerList ||
         type == kDockerManifest;
}

absl::StatusOr<Descriptor> ReadDescriptor(const Json& object, int64_t max_bytes) {
  if (!object.is_object()) return Wrong("a descriptor is not an object");
  Descriptor descriptor;
  std::string digest;
  descriptor.size = -1;
  RETURN_IF_ERROR(ReadMember(object, "mediaType", descriptor.media_type));
  RETURN_IF_ERROR(ReadMember(object, "digest", digest));
  RETURN_IF_ERROR(ReadMember(object, "size", descriptor.size));
  ASSIGN_OR_RETURN(descriptor.digest, Digest::Parse(digest));
  if (descriptor.size < 0 || descriptor.size > max_bytes) {
    return Wrong(absl::StrCat("'size' ", descriptor.size, " of ", descriptor.digest.ToString(),
                              " is not between 0 and ", max_bytes));
  }
  return descriptor;
}

absl::StatusOr<Platform> ReadPlatform(const Json& object) {
  Platform platform;
  RETURN_IF_ERROR(ReadMember(object, "os", platform.os));
  RETURN_IF_ERROR(ReadMember(object, "architecture", platform.architecture));
  RETURN_IF_ERROR(ReadMember(object, "variant", platform.variant));
  return platform;
}

absl::StatusOr<IndexEntry> ReadIndexEntry(const Json& object) {
  IndexEntry entry;
  ASSIGN_OR_RETURN(entry.manifest, ReadDescriptor(object, kMaxManifestBytes));
  if (const auto platform = object.find("platform");
      platform != object.end() && platform->is_object()) {
    ASSIGN_OR_RETURN(entry.platform, ReadPlatform(*platform), "'platform'");
  }
  if (const auto notes = object.find("annotations"); notes != object.end() && notes->is_object()) {
    RETURN_IF_ERROR(ReadMember(*notes, kRefName, entry.name), "'annotations'");
  }
  return entry;
}

absl::StatusOr<Index> ReadIndex(const Json& entries) {
  if (!entries.is_array() || entries.size() > kMaxIndexEntries) {
    return Wrong(absl::StrCat("'manifests' is not a list of at most ", kMaxIndexEntries));
  }
  Index index;
  for (const Json& entry : entries) {
    ASSIGN_OR_RETURN(index.entries.emplace_back(), ReadIndexEntry(entry), "'manifests'");
  }
  return index;
}

absl::StatusOr<Manifest> ReadManifest(const Json& document) {
  Manifest manifest;
  const auto config = document.find("config");
  const auto layers = document.find("layers");
  if (config == document.end()) return Wrong("'config' is missing");
  if (layers == document.end() || !layers->is_array() || layers->size() > kMaxLayers) {
    return Wrong(absl::StrCat("'layers' is not a list of at most ", kMaxLayers));
  }
  ASSIGN_OR_RETURN(manifest.config, ReadDescriptor(*config, kMaxConfigBytes), "'config'");
  for (const Json& layer : *layers) {
    ASSIGN_OR_RETURN(manifest.layers.emplace_back(), ReadDescriptor(layer, kMaxBlobBytes),
                     "'layers'");
  }
  const std::string& type = manifest.config.media_type;
  if (type != kOciConfig && type != kDockerConfig) {
    return absl::UnimplementedError(
        absl::StrCat("is not a runnable image: its config is '", Shown(type), "'"));
  }
  return manifest;
}

// Who calls one document two things wants different clients to see different images
// (CVE-2021-41190).
absl::Status CheckType(const Json& document, absl::string_view content_type) {
  std::string own;
  RETURN_IF_ERROR(ReadMember(document, "mediaType", own));
  content_type = absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';')));
  if (!own.empty() && IsManifestType(content_type) && own != content_type) {
    return Wrong(absl::StrCat("calls itself '", Shown(own), "', its server '", content_type, "'"));
  }
  const std::string type = own.empty() ? std::string(content_type) : own;
  const bool index = document.contains("manifests");
  if (index && (document.contains("config") || document.contains("layers"))) {
    return Wrong("is an index and a manifest at once");
  }
  if (document.contains("fsLayers") || absl::StrContains(type, "docker.distribution.manifest.v1")) {
    return absl::UnimplementedError("is of docker's schema 1, which nothing writes any more");
  }
  if (IsManifestType(type) && index != (type == kOciIndex || type == kDockerList)) {
    return Wrong(absl::StrCat("is not the '", type, "' that it is said to be"));
  }
  return absl::OkStatus();
}

// "v3" -> 3; 0 for anything else.
int Level(absl::string_view variant) {
  if (variant.size() == 2 && variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9') {
    return variant[1] - '0';
  }
  return 0;
}

bool RunsOn(const Platform& image, const Platform& host) {
  if (image.os != host.os || image.architecture != host.architecture) return false;
  return image.variant.empty() ||
         (Level(image.variant) > 0 && Level(image.variant) <= Level(host.variant));
}

}  // namespace

std::string Platform::ToString() const {
  return Shown(absl::StrCat(os, "/", architecture, variant.empty() ? "" : "/", variant));
}

absl::StatusOr<std::variant<Index, Manifest>> ParseManifestDocument(
    absl::string_view text, absl::string_view content_type) {
  if (text.size() > kMaxManifestBytes) {
    return Wrong(absl::StrCat("is longer than ", kMaxManifestBytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const Json document, ParseJsonObject(text));
  RETURN_IF_ERROR(CheckType(document, content_type));
  std::variant<Index, Manifest> result;
  if (const auto entries = document.find("manifests"); entries != document.end()) {
    ASSIGN_OR_RETURN(result, ReadIndex(*entries));
  } else {
    ASSIGN_OR_RETURN(result, ReadManifest(document));
  }
  return result;
}

absl::StatusOr<ImageConfig> ParseImageConfig(absl::string_view text) {
  if (text.size() > kMaxConfigBytes) {
    return Wrong(absl::StrCat("is longer than ", kMaxConfigBytes, " bytes"));
  }
  ASSIGN_OR_RETURN(const Json document, ParseJsonObject(text));
  ImageConfig config;
  ASSIGN_OR_RETURN(config.platform, ReadPlatform(document));
  if (const auto run = document.find("config"); run != document.end() && run->is_object()) {
    RETURN_IF_ERROR(ReadMember(*run, "Env", config.env));
    RETURN_IF_ERROR(ReadMember(*run, "Entrypoint", config.entrypoint));
    RETURN_IF_ERROR(ReadMember(*run, "Cmd", config.command));
    RETURN_IF_ERROR(ReadMember(*run, "User", config.user));
    RETURN_IF_ERROR(ReadMember(*run, "WorkingDir", config.work_dir));
  }
  for (const std::string& variable : config.env) {
    if (variable.find('=') == std::string::npos || variable[0] == '=') {
      return Wrong(absl::StrCat("'Env' holds '", Shown(variable), "', which is not KEY=VALUE"));
    }
  }
  if (!config.work_dir.empty() && config.work_dir[0] != '/') {
    return Wrong(absl::StrCat("'WorkingDir' '", Shown(config.work_dir), "' is not absolute"));
  }
  const auto rootfs = document.find("rootfs");
  if (rootfs == document.end() || !rootfs->is_object()) return Wrong("'rootfs' is missing");
  std::vector<std::string> diff_ids;
  RETURN_IF_ERROR(ReadMember(*rootfs, "diff_ids", diff_ids));
  for (const std::string& id : diff_ids) {
    ASSIGN_OR_RETURN(config.diff_ids.emplace_back(), Digest::Parse(id), "'diff_ids'");
  }
  return config;
}

Platform HostPlatform() {
  __builtin_cpu_init();
  int level = 1;
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")) level = 2;
  if (level == 2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
      __builtin_cpu_supports("fma")) {
    level = 3;
  }
  if (level == 3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    level = 4;
  }
  return {.os = "linux", .architecture = "amd64", .variant = absl::StrCat("v", level)};
}

absl::StatusOr<Descriptor> SelectPlatform(const Index& index, const Platform& host) {
  std::vector<std::string> others;
  const IndexEntry* unnamed = nullptr;
  for (const IndexEntry& entry : index.entries) {
    if (RunsOn(entry.platform, host)) return entry.manifest;
    if (entry.platform.os.empty() && entry.platform.architecture.empty()) {
      // Says nothing, so its config decides (CheckImage).
      if (unnamed == nullptr) unnamed = &entry;
      continue;
    }
    // BuildKit's attestations are entries of the platform unknown/unknown.
    if (entry.platform.os != "unknown" && others.size() < 16) {
      others.push_back(entry.platform.ToString());
    }
  }
  if (unnamed != nullptr) return unnamed->manifest;
  return absl::NotFoundError(
      absl::StrCat("has nothing for ", host.os, "/", host.architecture,
                   "; it has: ", others.empty() ? "nothing" : absl::StrJoin(others, ", ")));
}

absl::Status CheckImage(const Manifest& manifest, const ImageConfig& config, const Platform& host) {
  if (config.diff_ids.size() != manifest.layers.size()) {
    return Wrong(absl::StrCat("its config names ", config.diff_ids.size(), " layers, its manifest ",
                              manifest.layers.size()));
  }
  if (!RunsOn(config.platform, host)) {
    return absl::NotFoundError(
        absl::StrCat("is for ", config.platform.ToString(), ", this node is ", host.ToString()));
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
