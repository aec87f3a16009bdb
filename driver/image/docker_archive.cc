#include "driver/image/docker_archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/status.h"
#include "driver/image/decompress.h"
#include "driver/image/json.h"
#include "driver/image/layer_dir.h"
#include "driver/image/made_manifest.h"
#include "driver/image/manifest.h"
#include "driver/image/reference.h"

namespace jenkins_agent {
namespace {

constexpr char kManifestFile[] = "manifest.json";
constexpr size_t kMaxImages = 1024;
constexpr size_t kMaxNames = 64;  // that an error lists

absl::StatusOr<DockerArchiveEntry> ReadEntry(const Json& element) {
  if (!element.is_object()) return absl::InvalidArgumentError("holds what is no image");
  DockerArchiveEntry entry;
  RETURN_IF_ERROR(ReadMember(element, "Config", entry.config));
  RETURN_IF_ERROR(ReadMember(element, "RepoTags", entry.names));
  RETURN_IF_ERROR(ReadMember(element, "Layers", entry.layers));
  if (entry.config.empty()) return absl::InvalidArgumentError("'Config' is missing");
  if (entry.layers.size() > kMaxLayers) {
    return absl::InvalidArgumentError(absl::StrCat("'Layers' are more than ", kMaxLayers));
  }
  return entry;
}

// "busybox" and "docker.io/library/busybox:latest" are one name.
bool IsCalled(const DockerArchiveEntry& entry, const std::string& name) {
  const absl::StatusOr<Reference> wanted = ParseReference(name);
  return std::any_of(entry.names.begin(), entry.names.end(), [&](const std::string& own) {
    const absl::StatusOr<Reference> found = ParseReference(own);
    return own == name || (wanted.ok() && found.ok() && *wanted == *found);
  });
}

// Names in the archive are looked up in its own index, whatever they look like.
std::string NameInArchive(const std::string& path) { return absl::StrJoin(CleanPath(path), "/"); }

// An unpacked layer's digest is the config's; of a packed one nobody has said it.
absl::StatusOr<LocalLayer> DescribeLayer(const std::shared_ptr<ImageFiles>& files,
                                         const std::string& name, const Digest& diff_id) {
  LocalLayer layer = {
      .digest = diff_id, .size = 0, .open = [files, name] { return files->Stream(name); }};
  ASSIGN_OR_RETURN(layer.size, files->Size(name));
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> blob, layer.open());
  HashingSource hashed(*blob, layer.size);
  ASSIGN_OR_RETURN(const bool packed, IsCompressed(hashed));
  if (!packed) return layer;
  RETURN_IF_ERROR(Drain(hashed));
  layer.digest = hashed.Finish();
  return layer;
}

absl::StatusOr<std::unique_ptr<ImageSource>> Open(const std::shared_ptr<ImageFiles>& files,
                                                  const std::string& name) {
  ASSIGN_OR_RETURN(const std::string text, files->Text(kManifestFile, kMaxManifestBytes));
  ASSIGN_OR_RETURN(const std::vector<DockerArchiveEntry> entries, ParseDockerArchive(text));
  ASSIGN_OR_RETURN(const DockerArchiveEntry entry, FindInDockerArchive(entries, name));
  ASSIGN_OR_RETURN(const std::string config_text,
                   files->Text(NameInArchive(entry.config), kMaxConfigBytes), "its config");
  ASSIGN_OR_RETURN(const ImageConfig config, ParseImageConfig(config_text), "its config");
  if (config.diff_ids.size() != entry.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("its config names ", config.diff_ids.size(),
                                                   " layers, its manifest.json ",
                                                   entry.layers.size()));
  }
  std::vector<LocalLayer> layers;
  for (size_t i = 0; i < entry.layers.size(); ++i) {
    ASSIGN_OR_RETURN(layers.emplace_back(),
                     DescribeLayer(files, NameInArchive(entry.layers[i]), config.diff_ids[i]),
                     "layer ", i + 1);
  }
  return MakeSourceWithManifest(config_text, std::move(layers));
}

}  // namespace

absl::StatusOr<std::vector<DockerArchiveEntry>> ParseDockerArchive(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json document, ParseJsonArray(text), kManifestFile);
  if (document.size() > kMaxImages) {
    return absl::InvalidArgumentError(absl::StrCat(kManifestFile, " has too many images"));
  }
  std::vector<DockerArchiveEntry> entries;
  for (const Json& element : document) {
    ASSIGN_OR_RETURN(entries.emplace_back(), ReadEntry(element), kManifestFile);
  }
  return entries;
}

absl::StatusOr<DockerArchiveEntry> FindInDockerArchive(
    const std::vector<DockerArchiveEntry>& entries, const std::string& name) {
  if (name.empty() && entries.size() == 1) return entries[0];
  std::vector<std::string> names;
  for (const DockerArchiveEntry& entry : entries) {
    if (!name.empty() && IsCalled(entry, name)) return entry;
    for (const std::string& own : entry.names) {
      if (names.size() < kMaxNames) names.push_back(absl::CHexEscape(own));
    }
  }
  return absl::NotFoundError(absl::StrCat(
      name.empty() ? std::string("holds several images or none, and no name says which")
                   : absl::StrCat("has no image '", absl::CHexEscape(name), "'"),
      "; it has: ", names.empty() ? "no names" : absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::unique_ptr<ImageSource>> OpenDockerArchive(std::unique_ptr<ImageFiles> files,
                                                               const std::string& place,
                                                               const std::string& name) {
  absl::StatusOr<std::unique_ptr<ImageSource>> source = Open(std::move(files), name);
  if (!source.ok()) return Annotate(source.status(), absl::StrCat("docker archive ", place));
  return source;
}

}  // namespace jenkins_agent
