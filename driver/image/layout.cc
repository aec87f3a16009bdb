#include "driver/image/layout.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kIndexFile[] = "index.json";

class LayoutSource : public ImageSource {
 public:
  LayoutSource(std::unique_ptr<ImageFiles> files, const std::string& place, std::string name)
      : files_(std::move(files)),
        context_(absl::StrCat("layout ", place)),
        name_(std::move(name)) {}

  absl::StatusOr<FetchedDocument> Root() override {
    ASSIGN_OR_RETURN(const std::string text, files_->Text(kIndexFile, kMaxManifestBytes), context_);
    ASSIGN_OR_RETURN(const auto document, ParseManifestDocument(text, ""), context_,
                     ": index.json");
    const Index* const index = std::get_if<Index>(&document);
    if (index == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(context_, ": index.json is no index"));
    }
    if (name_.empty()) return FetchedDocument{.text = text, .content_type = ""};
    for (const IndexEntry& entry : index->entries) {
      if (entry.name == name_) return Document(entry.manifest);
    }
    return absl::NotFoundError(
        absl::StrCat(context_, " has no image '", absl::CHexEscape(name_), "'"));
  }

  absl::StatusOr<FetchedDocument> Document(const Descriptor& descriptor) override {
    ASSIGN_OR_RETURN(std::string text, files_->Text(BlobName(descriptor), kMaxManifestBytes),
                     context_);
    if (Digest::Of(text) != descriptor.digest) {
      return absl::DataLossError(absl::StrCat(context_, ": a document does not have the digest ",
                                              descriptor.digest.ToString()));
    }
    return FetchedDocument{.text = std::move(text), .content_type = ""};
  }

  absl::StatusOr<std::unique_ptr<ByteSource>> Blob(const Descriptor& descriptor,
                                                   int attempt) override {
    if (attempt > 0) return absl::NotFoundError("there is no further place to get it from");
    absl::StatusOr<std::unique_ptr<ByteSource>> blob = files_->Stream(BlobName(descriptor));
    if (!blob.ok()) return Annotate(blob.status(), context_);
    return blob;
  }

 private:
  static std::string BlobName(const Descriptor& descriptor) {
    return absl::StrCat("blobs/sha256/", descriptor.digest.hex());
  }

  const std::unique_ptr<ImageFiles> files_;
  const std::string context_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<ImageSource> MakeLayoutSource(std::unique_ptr<ImageFiles> files,
                                              const std::string& place, const std::string& name) {
  return std::make_unique<LayoutSource>(std::move(files), place, name);
}

}  // namespace jenkins_agent
