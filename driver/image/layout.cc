#include "driver/image/layout.h"

#include <fcntl.h>
#include <linux/openat2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// A file with its descriptor.
class OwnedFileSource : public ByteSource {
 public:
  explicit OwnedFileSource(Fd fd) : fd_(std::move(fd)), source_(fd_.get()) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    return source_.Read(buffer, size);
  }

 private:
  const Fd fd_;
  FileSource source_;
};

class LayoutSource : public ImageSource {
 public:
  LayoutSource(std::string dir, std::string name) : dir_(std::move(dir)), name_(std::move(name)) {}

  absl::StatusOr<FetchedDocument> Root() override {
    const std::string context = absl::StrCat("layout ", dir_);
    ASSIGN_OR_RETURN(const Fd file, Open("index.json"), context);
    ASSIGN_OR_RETURN(const std::string text, ReadAll(file.get(), kMaxManifestBytes), context);
    ASSIGN_OR_RETURN(const auto document, ParseManifestDocument(text, ""), context, ": index.json");
    const Index* const index = std::get_if<Index>(&document);
    if (index == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(context, ": index.json is no index"));
    }
    if (name_.empty()) return FetchedDocument{.text = text, .content_type = ""};
    for (const IndexEntry& entry : index->entries) {
      if (entry.name == name_) return Document(entry.manifest);
    }
    return absl::NotFoundError(absl::StrCat(context, " has no image '", name_, "'"));
  }

  absl::StatusOr<FetchedDocument> Document(const Descriptor& descriptor) override {
    ASSIGN_OR_RETURN(const Fd file, OpenBlob(descriptor), "layout ", dir_);
    ASSIGN_OR_RETURN(std::string text, ReadAll(file.get(), kMaxManifestBytes), "layout ", dir_);
    if (Digest::Of(text) != descriptor.digest) {
      return absl::DataLossError(absl::StrCat(
          "layout ", dir_, ": a document does not have the digest ", descriptor.digest.ToString()));
    }
    return FetchedDocument{.text = std::move(text), .content_type = ""};
  }

  absl::StatusOr<std::unique_ptr<ByteSource>> Blob(const Descriptor& descriptor,
                                                   int attempt) override {
    if (attempt > 0) return absl::NotFoundError("there is no further place to get it from");
    ASSIGN_OR_RETURN(Fd file, OpenBlob(descriptor), "layout ", dir_);
    return std::make_unique<OwnedFileSource>(std::move(file));
  }

 private:
  absl::StatusOr<Fd> OpenBlob(const Descriptor& descriptor) const {
    return Open(absl::StrCat("blobs/sha256/", descriptor.digest.hex()));
  }

  // Who wrote the layout chooses no file outside of it. O_NONBLOCK: nor a FIFO that waits.
  absl::StatusOr<Fd> Open(const std::string& name) const {
    ASSIGN_OR_RETURN(const Fd dir, OpenFile(dir_, O_PATH | O_DIRECTORY));
    return OpenAt2(dir.get(), name, O_RDONLY | O_NONBLOCK, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
  }

  const std::string dir_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<ImageSource> MakeLayoutSource(const std::string& dir, const std::string& name) {
  return std::make_unique<LayoutSource>(dir, name);
}

}  // namespace jenkins_agent
