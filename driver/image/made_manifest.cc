#include "driver/image/made_manifest.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kConfigType[] = "application/vnd.oci.image.config.v1+json";
constexpr char kLayerType[] = "application/vnd.oci.image.layer.v1.tar";

Json DescriptorOf(const char* type, const Digest& digest, int64_t size) {
  return {{"mediaType", type}, {"digest", digest.ToString()}, {"size", size}};
}

class SourceWithManifest : public ImageSource {
 public:
  SourceWithManifest(std::string config, std::vector<LocalLayer> layers)
      : config_(std::move(config)), config_digest_(Digest::Of(config_)) {
    Json list = Json::array();
    for (LocalLayer& layer : layers) {
      list.push_back(DescriptorOf(kLayerType, layer.digest, layer.size));
      layers_[layer.digest] = std::move(layer);
    }
    manifest_ = Json({{"schemaVersion", 2},
                      {"mediaType", kManifestType},
                      {"config", DescriptorOf(kConfigType, config_digest_,
                                              static_cast<int64_t>(config_.size()))},
                      {"layers", list}})
                    .dump();
  }

  absl::StatusOr<FetchedDocument> Root() override {
    return FetchedDocument{.text = manifest_, .content_type = kManifestType};
  }
  absl::StatusOr<FetchedDocument> Document(const Descriptor& descriptor) override {
    return absl::NotFoundError(absl::StrCat("no document ", descriptor.digest.ToString()));
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> Blob(const Descriptor& descriptor,
                                                   int attempt) override {
    if (attempt > 0) return absl::NotFoundError("there is no further place to get it from");
    if (descriptor.digest == config_digest_) return std::make_unique<TextSource>(config_);
    const auto layer = layers_.find(descriptor.digest);
    if (layer == layers_.end()) {
      return absl::NotFoundError(absl::StrCat("no blob ", descriptor.digest.ToString()));
    }
    return layer->second.open();
  }

 private:
  const std::string config_;
  const Digest config_digest_;
  std::map<Digest, LocalLayer> layers_;
  std::string manifest_;
};

}  // namespace

std::unique_ptr<ImageSource> MakeSourceWithManifest(const std::string& config,
                                                    std::vector<LocalLayer> layers) {
  return std::make_unique<SourceWithManifest>(config, std::move(layers));
}

}  // namespace jenkins_agent
