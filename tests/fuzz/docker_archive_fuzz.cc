// What `docker save` wrote: the first byte chooses between the documents alone (manifest.json, the
// config and a layer, each ended by "\n--\n") and a whole archive.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/image/docker_archive.h"
#include "driver/image/manifest.h"
#include "tests/fuzz/fuzz.h"

namespace jenkins_agent {
namespace {

// manifest.json and the config by their names, any other name is the layer.
class Documents : public ImageFiles {
 public:
  explicit Documents(absl::string_view text) : parts_(absl::StrSplit(text, "\n--\n")) {
    parts_.resize(3);
  }
  absl::StatusOr<std::string> Text(const std::string& name, size_t limit) override {
    Check(name);
    const std::string& text = name == "manifest.json" ? parts_[0] : parts_[1];
    if (text.size() > limit) return absl::OutOfRangeError("too long");
    return text;
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> Stream(const std::string& name) override {
    Check(name);
    return std::make_unique<TextSource>(parts_[2]);
  }
  absl::StatusOr<int64_t> Size(const std::string& name) override {
    Check(name);
    return static_cast<int64_t>(parts_[2].size());
  }

 private:
  // As ImageFiles says of names.
  static void Check(const std::string& name) {
    for (const absl::string_view part : absl::StrSplit(name, '/')) {
      Require(part != ".." && part != "." && (!part.empty() || name.empty()));
    }
  }
  std::vector<std::string> parts_;
};

// What came out must be a manifest that a pull goes on with, and no error may be empty.
void Look(std::unique_ptr<ImageFiles> files, const std::string& name) {
  const absl::StatusOr<std::unique_ptr<ImageSource>> source =
      OpenDockerArchive(std::move(files), "x", name);
  if (!source.ok()) return Require(!source.status().message().empty());
  const absl::StatusOr<FetchedDocument> root = (*source)->Root();
  Require(root.ok());
  const auto document = ParseManifestDocument(root->text, root->content_type);
  Require(document.ok() && std::get<Manifest>(*document).layers.size() <= kMaxLayers);
  for (const Descriptor& layer : std::get<Manifest>(*document).layers) {
    Require((*source)->Blob(layer, 0).ok());
  }
}

}  // namespace
}  // namespace jenkins_agent

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  if (size == 0) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 2 == 0) {
    Look(std::make_unique<Documents>(text), data[0] % 4 == 0 ? "" : "busybox");
    return 0;
  }
  const absl::StatusOr<Fd> memory = MakeSealedMemfd("archive", text);
  Require(memory.ok());
  absl::StatusOr<std::unique_ptr<ImageFiles>> files =
      OpenArchiveFiles(absl::StrCat("/proc/self/fd/", memory->get()));
  if (files.ok()) Look(*std::move(files), "");
  return 0;
}
